"""A recipe from a configuration file (TOML) or from plain values, with every name and number checked."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file. ValueError names the place of what does not fit, and what does."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is no TOML: {error}.") from None
    return recipe_of({"name": path.stem, **values})


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe of plain values, nested as its records are. ValueError for unknown names, kinds and words."""
    recipe: Recipe = record(Recipe, values, "")
    check(recipe)
    return recipe


def plain(recipe: Recipe) -> dict[str, Any]:
    """The same as plain values, for files."""
    return dataclasses.asdict(recipe)


def check(recipe: Recipe) -> None:
    """ValueError for numbers that no training can have."""
    data, steps = recipe.data, recipe.steps
    least = {
        "part.rank": (recipe.part.rank, 1),
        "data.width": (data.width, 16),
        "data.height": (data.height, 16),
        "data.frames": (data.frames, 1),
        "data.stride": (data.stride, 1),
        "data.variants": (data.variants, 1),
        "steps.batch": (steps.batch, 1),
        "steps.at_once": (steps.at_once, 1),
        "steps.total": (steps.total, 1),
        "machine.save_every": (recipe.machine.save_every, 1),
    }
    for name, (value, most) in least.items():
        if value < most:
            raise ValueError(f"{name} is {value}: at least {most}.")
    shares = {
        "data.dropout": data.dropout,
        "data.image_dropout": 3 * data.image_dropout,
        "loss.motion_sub": recipe.loss.motion_sub,
        "steps.ema": steps.ema,
        "data.start": data.start,
        "data.end": data.end,
    }
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is out of its range: got {value}, at most 1 in all.")
    if data.start >= data.end:
        raise ValueError(f"data.start ({data.start}) lies behind data.end ({data.end}).")
    if steps.lr <= 0 or recipe.part.alpha <= 0:
        raise ValueError("steps.lr and part.alpha are above 0.")


def record(kind: type[Any], values: Any, place: str) -> Any:
    """A dataclass from a table; `place` is its name in messages. ValueError for unknown names, kinds and words."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{place or 'A configuration'} is a table: got {values!r}.")
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise ValueError(
            f"Unknown in {place or 'the configuration'}: {', '.join(unknown)}. Known: {', '.join(fields)}."
        )
    for name, one in fields.items():
        has_default = one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
        if name not in values and not has_default:
            raise ValueError(f"{_join(place, name)} is missing.")
    return kind(**{key: _value(hints[key], value, _join(place, key)) for key, value in values.items()})


def _value(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return record(kind, value, place)  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{place} is {value!r}: choose one of {', '.join(get_args(kind))}.")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{place} is a list of texts: got {value!r}.")
        return tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{place} is {kind.__name__}: got {value!r}.")
    return value


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
