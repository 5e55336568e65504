"""Pattern tables that turn one publisher's state-dict keys into ours."""

import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, lru_cache

HOLE = re.compile(r"\{(\w+)\}")
NUMBERS = re.compile(r"[0-9#]+")
# in front of our name for a key whose shape tells something of a config and whose values nobody needs
TOLD = "told:"
LONGEST_KEY = 500  # no table knows a longer one
WORDS = {"p": "weight|bias"}  # a hole of any other name holds a number


Rows = tuple[tuple[str, str | None], ...]  # (pattern of the file's key, pattern of ours or None)


class UnknownKeys(ValueError):
    """Keys of a file for which a table has no row."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        shown = ", ".join(self.keys[:5])
        more = ", ..." if len(self.keys) > 5 else ""
        super().__init__(f"{len(self.keys)} keys are in no row of the key table: {shown}{more}")


class KeyMap:
    """Rows (pattern of the file's key, pattern of ours).

    Holes: `{p}` is "weight" or "bias", any other name is a number. None instead of our pattern drops the
    key, knowingly. The first row that fits decides.
    """

    def __init__(self, *rows: tuple[str, str | None]) -> None:
        self.rows = rows

    @cached_property
    def _alike(self) -> Mapping[str, list[tuple[str, str | None]]]:
        """The rows by what is left of their keys without the numbers: tables have hundreds of rows."""
        alike: dict[str, list[tuple[str, str | None]]] = {}
        for pattern, ours in self.rows:
            for text in _without_numbers(pattern):
                alike.setdefault(text, []).append((pattern, ours))
        return alike

    def find(self, key: str) -> tuple[bool, str | None]:
        """(whether a row fits, our name for the key or None where the row drops it)."""
        if len(key) > LONGEST_KEY:
            return False, None
        for pattern, ours in self._alike.get(_numberless(key), ()):
            if fit := _compile(pattern).fullmatch(key):
                return True, ours.format(**fit.groupdict()) if ours is not None else None
        return False, None

    def match(self, keys: Iterable[str]) -> tuple[dict[str, str | None], tuple[str, ...]]:
        """({file key: our key or None}, the keys no row fits)."""
        renames: dict[str, str | None] = {}
        unknown = []
        for key in keys:
            fits, ours = self.find(key)
            if fits:
                renames[key] = ours
            else:
                unknown.append(key)
        return renames, tuple(unknown)

    def rename(self, keys: Iterable[str]) -> dict[str, str | None]:
        """{file key: our key, or None for a dropped one}; UnknownKeys when a key fits no row.

        ValueError when two file keys claim one of ours, which would lose a tensor silently.
        """
        renames, unknown = self.match(keys)
        if unknown:
            raise UnknownKeys(unknown)
        if doubled := doubled_keys(renames):
            raise ValueError(f"Two keys of the file stand for the same weight: {', '.join(doubled[:5])}")
        return renames

    def reverse(self) -> "KeyMap":
        """The table from our names back to the file's; dropped keys are gone."""
        return self._reversed

    @cached_property
    def _reversed(self) -> "KeyMap":
        return KeyMap(*((ours, theirs) for theirs, ours in self.rows if ours is not None))


def same(*patterns: str) -> Rows:
    """Rows for keys that keep their name."""
    return tuple((pattern, pattern) for pattern in patterns)


def dropped(rows: Rows) -> Rows:
    """Rows that know the same keys and have no use for them."""
    return tuple((theirs, None) for theirs, _ in rows)


def under(theirs: str, ours: str, rows: Rows) -> Rows:
    """Rows with a place in front of both names."""
    return tuple((theirs + a, ours + b if b is not None else None) for a, b in rows)


def originals(rows: Rows) -> Rows:
    """Rows of the names on our side alone, for a table that keeps them."""
    return same(*(ours for _, ours in rows if ours is not None))


def doubled_keys(renames: Mapping[str, str | None]) -> list[str]:
    """Our keys that more than one file key claims."""
    seen: set[str] = set()
    doubled = []
    for ours in renames.values():
        if ours is not None and ours in seen:
            doubled.append(ours)
        elif ours is not None:
            seen.add(ours)
    return doubled


@lru_cache(2**14)  # every table is asked for every key of a file
def _numberless(key: str) -> str:
    return NUMBERS.sub("#", key)


def _without_numbers(pattern: str) -> set[str]:
    """What keys that fit a pattern look like with "#" for each number: one text per word of a `{p}`."""
    texts = {pattern}
    for hole, words in WORDS.items():
        texts = {text.replace(f"{{{hole}}}", word) for text in texts for word in words.split("|")}
    return {_numberless(HOLE.sub("#", text)) for text in texts}


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """A regular expression with one named group per hole; a repeated hole must repeat its text."""
    text, seen, end = "", set(), 0
    for hole in HOLE.finditer(pattern):
        text += re.escape(pattern[end : hole.start()])
        name, end = hole.group(1), hole.end()
        text += f"(?P={name})" if name in seen else f"(?P<{name}>{WORDS.get(name, '[0-9]+')})"
        seen.add(name)
    return re.compile(text + re.escape(pattern[end:]))
