"""Keys of a file held against every table that may explain them: the best one is weighed against its config."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from . import quantisation
from .dtypes import DTYPES, main_dtype
from .errors import SHOWN_CHARACTERS, shown
from .files import Header
from .finding import Finding
from .fused import whole
from .keymap import TOLD, doubled_keys
from .part import Part, PartsOfFamily, Shapes

NEAR = 0.5  # share of the keys that must fit a part's table before it is called likely


@dataclass(frozen=True)
class Reading:
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


def examine(
    header: Header, prefix: str, keys: dict[str, str], families: tuple[PartsOfFamily, ...]
) -> Finding:
    """Try every table on the keys of one prefix and weigh the one that explains most."""
    shapes = {key: header.shapes[key] for key in keys.values()}
    count = sum(prod(shape) for shape in shapes.values())
    size: dict[str, Any] = {
        "parameters": count,
        "dtype": main_dtype(shapes, header.dtypes),
        "keys": len(set(map(whole, keys.values()))),
    }
    readings = [
        Reading(family, part, dialect, *keymap.match(keys))
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
    header: Header, prefix: str, keys: dict[str, str], reading: Reading, size: dict[str, Any]
) -> Finding:
    """Compare what the file holds with what its config asks for."""
    part, ours = reading.part, reading.ours
    extras, unknown = part.extras.match(reading.unknown)
    held = {key: header.shapes[keys[theirs]] for key, theirs in ours.items()}
    found = {key: shape for key, shape in held.items() if not key.startswith(TOLD)}
    dtypes = {key: header.dtypes[keys[ours[key]]] for key in found}
    config, expected, missing, problem = _configure(reading, held, header)
    quantised = quantisation.problem(
        (keys[key] for key in unknown), (keys[key] for key in extras), header.dtypes
    )
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
        renames={keys[key]: _needed(new) for key, new in {**reading.renames, **extras}.items()},
        reshaped={key: known[key] for key in fitting if found[key] != known[key]},
        matched=len({whole(keys[ours[key]]) for key in fitting}),
        missing=tuple(key for key in known if key not in found) or missing,
        unexpected=tuple(keys[key] for key in (*unknown, *(ours[key] for key in found if key not in known))),
        misshapen=tuple(
            f"{shown(key)}: {shown(found[key])} for {shape}"
            for key, shape in known.items()
            if not part.fits(found.get(key, shape), shape)
        ),
        problem=quantised or _unusable(reading.renames, dtypes) or problem,
        **size,
    )


def _needed(ours: str | None) -> str | None:
    """Our name of a key whose values are needed."""
    return None if ours is not None and ours.startswith(TOLD) else ours


def _unusable(renames: Mapping[str, str | None], dtypes: Mapping[str, str]) -> str | None:
    """What makes weights useless though their keys and shapes may fit."""
    if doubled := doubled_keys(renames):
        return f"two of its keys stand for {shown(doubled[0])}."
    odd = [f"{key}: {word}" for key, word in dtypes.items() if not _is_float(word)]
    if odd:
        return f"{len(odd)} weights are no floating point numbers ({shown(odd[0])}): a quantisation not known here."
    return None


def _configure(
    reading: Reading, found: Shapes, header: Header
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
