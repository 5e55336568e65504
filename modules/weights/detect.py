"""Which family, variant and dialect a checkpoint is of, from its keys and shapes alone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from .errors import SHOWN_CHARACTERS, CheckpointError, shown, shown_list
from .files import DTYPES, Header, main_dtype
from .keymap import KeyMap, doubled_keys
from .part import Kind, Part, PartsOfFamily, Shapes

# What programs put in front of a part's own keys, alone or one after another: pipelines, wrappers, compilers.
WRAPPERS = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "module",
    "model",
    "net",
    "pipe",
    "pipeline",
    "diffusion_model",
    "transformer",
    "unet",
    "first_stage_model",
    "vae",
    "text_encoder",
    "text_encoders",
    "t5xxl",
    "image_encoder",
    "cond_stage_model",
    r"conditioner\.embedders\.0\.open_clip",
    r"conditioner\.embedders\.3\.encoder",
)
PREFIX = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)*")
# What compilers and checkpointing put in front of single blocks.
INNER = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
NEAR = 0.5  # share of the keys that must fit a part's table before it is called likely


@dataclass(frozen=True)
class Finding:
    """What one part of a checkpoint turned out to be. Key lists are in our naming but for `unexpected`."""

    name: str  # of the file or folder
    family: str = "unknown"
    label: str = "unknown"
    kind: Kind | None = None
    variant: str = "unknown"
    dialect: str = "unknown"
    prefix: str = ""
    part: Part | None = None
    config: Any = None
    renames: Mapping[str, str | None] = field(default_factory=dict)  # the file's key -> ours, None: dropped
    reshaped: Shapes = field(default_factory=dict)  # our key -> shape, where the file stores another
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()  # the file's own names
    misshapen: tuple[str, ...] = ()  # "key: (got) for (wanted)"
    problem: str | None = None  # why a recognised file is of no use
    parameters: int = 0
    dtype: str = "none"
    keys: int = 0

    @property
    def complete(self) -> bool:
        """Every key is used or dropped knowingly, none is missing, every shape fits."""
        return self.config is not None and not (
            self.missing or self.unexpected or self.misshapen or self.problem
        )

    @property
    def what(self) -> str:
        """Label and variant, or label and kind where the sizes are not known."""
        return f"{self.label} {self.variant if self.config is not None else self.kind}"

    @property
    def num_dropped(self) -> int:
        """Keys of the file that are known and not needed."""
        return sum(ours is None for ours in self.renames.values())

    def check(self) -> "Finding":
        """Itself when complete; otherwise CheckpointError with counts, the first five keys and the family."""
        if not self.complete:
            raise CheckpointError(self.complaint())
        return self

    def complaint(self) -> str:
        """Why this is not a complete checkpoint, for a user."""
        if self.part is None:
            return (
                f"{self.name} is of no kind known here: {self.keys} keys, such as "
                f"{shown_list(self.unexpected)}. Choose another file."
            )
        if self.problem:
            return f"{self.name} looks like {self.what}, but: {self.problem}"
        lists = {"missing": self.missing, "unexpected": self.unexpected, "misshapen": self.misshapen}
        faults = "; ".join(f"{len(keys)} {word} ({shown_list(keys)})" for word, keys in lists.items() if keys)
        return (
            f"{self.name} looks like {self.what} ({self.dialect} keys), {self.matched} keys fit, but not all: "
            f"{faults}. Use the file as it was published."
        )


def detect(header: Header, families: Iterable[PartsOfFamily], kind: Kind | None = None) -> Finding:
    """The part of a checkpoint that is of `kind`, or its largest part when no kind is asked for.

    Never raises for a strange file: see `Finding.complete` and `Finding.check`.
    """
    return _of_kind(detect_all(header, families), kind)


def _of_kind(findings: tuple[Finding, ...], kind: Kind | None) -> Finding:
    """The largest finding of a kind; else the largest one, with what is there in place of it."""
    wanted = [finding for finding in findings if kind is None or finding.kind == kind]
    if wanted:
        return wanted[0]
    found = ", ".join(f"{finding.label} {finding.kind}" for finding in findings if finding.part)
    problem = f"it holds {found}, and a {kind} is wanted here." if found else None
    return replace(findings[0], problem=problem)


def choose(
    header: Header,
    families: Iterable[PartsOfFamily],
    family: PartsOfFamily,
    kind: Kind,
    findings: tuple[Finding, ...] | None = None,
) -> Finding:
    """The complete part of `kind` of one family; CheckpointError says what the file is instead, and who takes it.

    `findings` are the family's own, where somebody has them.
    """
    finding = _of_kind(findings or detect_all(header, (family,)), kind)
    if finding.kind == kind:
        return finding.check()
    others = [other for other in detect_all(header, families) if other.part]
    wanted = family.parts[kind].node
    takers = dict.fromkeys(
        other.part.node.title for other in others if other.part and other.part.node != wanted
    )
    if not takers:
        return finding.check()
    found = " and ".join(dict.fromkeys(other.what for other in others))
    raise CheckpointError(
        f"{header.name} is {found}, no {family.label} {kind.replace('_', ' ')}: use {' or '.join(takers)}."
    )


def detect_all(header: Header, families: Iterable[PartsOfFamily]) -> tuple[Finding, ...]:
    """One Finding per part that the file holds, largest first; a single unknown one for a strange file."""
    families = tuple(families)
    groups = unwrap(header.shapes)
    findings = [_examine(header, prefix, keys, families) for prefix, keys in groups.items()]
    findings.sort(key=lambda finding: (finding.part is None, -finding.parameters))
    return tuple(findings) or (Finding(header.name),)


def sure_parts(keys: Iterable[str], families: Iterable[PartsOfFamily]) -> frozenset[tuple[str, Kind]]:
    """(family, kind) of every part that a file with these keys surely holds.

    Empty when some of the keys are of no known part: then nobody can say what the file is not. Looks for telling
    keys alone, so it takes microseconds.
    """
    found: set[tuple[str, Kind]] = set()
    for prefix, bare in unwrap(keys).items():
        here: set[tuple[str, Kind]] = {
            (family.id, part.kind)
            for family in families
            for part in family.parts.values()
            if part.is_under(prefix)
            and any(_telling(part, dialect) <= bare.keys() for dialect in part.dialects.values())
        }
        if not here:
            return frozenset()
        found |= here
    return frozenset(found)


def _telling(part: Part, dialect: KeyMap) -> set[str | None]:
    """A part's telling keys in the words of a dialect; None for one that it does not have."""
    return {dialect.reverse().find(key)[1] for key in part.signature}


def unwrap(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """{what lies around a part: {the part's own key: the file's}}."""
    groups: dict[str, dict[str, str]] = {}
    # plain keys first: a wrapped one that would take a plain one's name keeps its own, and so is told as unknown
    for key in sorted(keys, key=lambda key: INNER.search(key) is not None):
        fit = PREFIX.match(key)
        prefix = fit.group() if fit else ""
        group, bare = groups.setdefault(prefix, {}), key[len(prefix) :]
        plain = INNER.sub("", bare)
        group[bare if plain in group else plain] = key
    return groups


@dataclass(frozen=True)
class _Reading:
    """One dialect of one part, tried on a group of keys."""

    family: PartsOfFamily
    part: Part
    dialect: str
    renames: dict[str, str | None]
    unknown: tuple[str, ...]

    @cached_property
    def ours(self) -> dict[str, str]:
        """Our key -> the group's key."""
        return {ours: key for key, ours in self.renames.items() if ours is not None}

    @cached_property
    def lacking(self) -> tuple[str, ...]:
        """Telling keys that the group does not hold."""
        return tuple(key for key in self.part.signature if key not in self.ours)

    @property
    def likely(self) -> bool:
        """Whether the group is meant to be this part: most telling keys are there, and most others are known."""
        told, known = len(self.part.signature) - len(self.lacking), len(self.renames)
        return not self.lacking or (
            2 * told >= len(self.part.signature) and known >= NEAR * (known + len(self.unknown))
        )


def _examine(
    header: Header, prefix: str, keys: dict[str, str], families: tuple[PartsOfFamily, ...]
) -> Finding:
    """Try every table on the keys of one prefix and weigh the one that explains most."""
    shapes = {key: header.shapes[key] for key in keys.values()}
    count = sum(prod(shape) for shape in shapes.values())
    size: dict[str, Any] = {
        "parameters": count,
        "dtype": main_dtype(shapes, header.dtypes),
        "keys": len(keys),
    }
    readings = [
        _Reading(family, part, dialect, *keymap.match(keys))
        for family in families
        for part in family.parts.values()
        if part.is_under(prefix)
        for dialect, keymap in part.dialects.items()
    ]
    best = max(
        readings,
        key=lambda reading: (not reading.lacking, reading.likely, len(reading.renames)),
        default=None,
    )
    if best is None or not best.likely:
        return Finding(header.name, prefix=prefix, unexpected=tuple(shapes), **size)
    return _weigh(header, prefix, keys, best, size)


def _weigh(
    header: Header, prefix: str, keys: dict[str, str], reading: _Reading, size: dict[str, Any]
) -> Finding:
    """Compare what the file holds with what its config asks for."""
    part, ours = reading.part, reading.ours
    extras, unknown = part.extras.match(reading.unknown)
    found = {key: header.shapes[keys[theirs]] for key, theirs in ours.items()}
    dtypes = {key: header.dtypes[keys[theirs]] for key, theirs in ours.items()}
    config, expected, missing, problem = _configure(reading, found, header)
    known = expected if config is not None else found
    fitting = [key for key, shape in known.items() if key in found and part.fits(found[key], shape)]
    return Finding(
        name=header.name,
        family=reading.family.id,
        label=reading.family.label,
        kind=part.kind,
        variant=part.variant(config) if config is not None else "unknown",
        dialect=reading.dialect + ("-fp8" if size["dtype"].startswith("float8") else ""),
        prefix=prefix,
        part=part,
        config=config,
        renames={keys[key]: new for key, new in {**reading.renames, **extras}.items()},
        reshaped={key: known[key] for key in fitting if found[key] != known[key]},
        matched=len(fitting),
        missing=tuple(key for key in known if key not in found) or missing,
        unexpected=tuple(keys[key] for key in (*unknown, *(ours[key] for key in found if key not in known))),
        misshapen=tuple(
            f"{shown(key)}: {shown(found[key])} for {shape}"
            for key, shape in known.items()
            if not part.fits(found.get(key, shape), shape)
        ),
        problem=_unusable(reading.renames, dtypes) or problem,
        **size,
    )


def _unusable(renames: Mapping[str, str | None], dtypes: Mapping[str, str]) -> str | None:
    """What makes weights useless though their keys and shapes may fit."""
    if doubled := doubled_keys(renames):
        return f"two of its keys stand for {shown(doubled[0])}."
    odd = [f"{key}: {word}" for key, word in dtypes.items() if not _is_float(word)]
    if odd:
        return f"{len(odd)} weights are no floating point numbers ({shown(odd[0])}): a quantisation not known here."
    return None


def _configure(
    reading: _Reading, found: Shapes, header: Header
) -> tuple[Any, Shapes, tuple[str, ...], str | None]:
    """(config, shapes it asks for, keys it needed and did not find, what is wrong in words)."""
    if reading.lacking:
        return None, {}, reading.lacking, None
    highest = _highest_number(found)
    # a part has fewer blocks than keys; building what the number asks for would not end
    if highest > len(found):
        return None, {}, (), f"a key is numbered {highest}, more than there are keys."
    try:
        config = reading.part.read_config(found, header.settings)
        return config, reading.part.shapes(config), (), None
    except KeyError as error:
        return None, {}, (str(error.args[0]),), None
    except ValueError as error:
        # ours are sentences; those of Python, on a shape with too few lengths, are not
        if str(error).endswith("."):
            return None, {}, (), shown(error, 3 * SHOWN_CHARACTERS)
    except (ArithmeticError, LookupError, TypeError, RuntimeError):
        pass
    if header.settings is None:
        return None, {}, (), "its shapes fit no known size."
    remedy = "Use the config.json that was published with the weights."
    return None, {}, (), f"its shapes and the settings in its config fit no known size together. {remedy}"


def _highest_number(keys: Iterable[str]) -> int:
    """The highest number in a key; of endless ones the first digits do."""
    numbers = (number for key in keys for number in key.split(".") if number.isdecimal())
    return max((int(number.lstrip("0")[:18] or 0) for number in numbers), default=0)


def _is_float(word: str) -> bool:
    """Whether a dtype, in the format's words, is one that PyTorch computes or stores weights in."""
    return word in DTYPES and DTYPES[word].is_floating_point
