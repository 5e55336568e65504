"""What a config.json says and no shape tells, each value checked before anything is built with it."""

import reprlib
from collections.abc import Mapping
from typing import Any

REMEDY = "Use the config.json that was published with the weights."

SHOWN = 80  # characters of a value that is refused


def brief(value: Any) -> str:
    """A value as an error may hold it: escaped, and cut where it is long."""
    text = reprlib.repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def whole(settings: Mapping[str, Any], name: str, usual: int, most: int, least: int = 1) -> int:
    """A whole number from `least` to `most`, `usual` where the settings tell none; ValueError for anything else."""
    value = settings.get(name, usual)
    if not _is_whole(value) or not least <= value <= most:
        fits = f"a whole number from {least} to {most}" if least < most else str(most)
        raise ValueError(f"{name} in its config must be {fits}: got {brief(value)}. {REMEDY}")
    return value


def switch(settings: Mapping[str, Any], name: str, usual: bool) -> bool:
    """true or false, `usual` where the settings tell neither; ValueError for anything else."""
    value = settings.get(name, usual)
    if not isinstance(value, bool):
        raise ValueError(f"{name} in its config must be true or false: got {brief(value)}. {REMEDY}")
    return value


def colours(
    settings: Mapping[str, Any],
    channels: int,
    usual: tuple[tuple[float, ...], ...],
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """(factors, bias) that turn latents into previews: three numbers a channel, and three.

    The settings tell them as latent_rgb_factors and latent_rgb_bias. ValueError for other counts, and for what is
    no finite number.
    """
    factors = settings.get("latent_rgb_factors", usual)
    bias = settings.get("latent_rgb_bias", (0.0, 0.0, 0.0))
    if factors is not usual and not _is_row(factors, channels, lambda row: _is_row(row, 3, _is_finite)):
        raise ValueError(
            f"latent_rgb_factors in its config must be {channels} rows of three numbers, one for each latent channel: "
            f"got {brief(factors)}. {REMEDY}"
        )
    if not _is_row(bias, 3, _is_finite):
        raise ValueError(f"latent_rgb_bias in its config must be three numbers: got {brief(bias)}. {REMEDY}")
    return tuple(tuple(row) for row in factors), tuple(bias)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that fits a float32; JSON of Python may hold NaN and Infinity."""
    return (_is_whole(value) or isinstance(value, float)) and abs(value) < 1e30


def _is_row(value: Any, count: int, is_entry: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(is_entry, value))
