"""What a config.json says and no shape tells, each value checked before anything is built with it.

A file that the host saves keeps no such settings. Ours go along as empty tensors, whose shapes tell the values:
(0, value) for a number, (0, 1, value) for a switch.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

REMEDY = "Use the config.json that was published with the weights."

NOTE = "kinetograph_settings."
# What ComfyUI writes beside the weights into files that it saves; nothing here needs it.
MARKERS = frozenset(
    ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "cond_stage_model.t5xxl.logit_scale")
)
SHOWN = 80  # characters of a value that is refused


def brief(value: Any) -> str:
    """A value as an error may hold it: escaped, and cut where it is long."""
    text = reprlib.repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def notes_of(settings: Mapping[str, int]) -> dict[str, Tensor]:
    """Settings as tensors to be saved beside the weights that they belong to."""
    return {
        NOTE + name: torch.empty(0, 1, value) if isinstance(value, bool) else torch.empty(0, value)
        for name, value in settings.items()
    }


def read_note(key: str, shape: tuple[int, ...]) -> dict[str, int]:
    """The setting that a key with its shape tells; none for a key that is no note."""
    _, note, name = key.rpartition(NOTE)
    if not note or shape[:1] != (0,) or len(shape) not in (2, 3):
        return {}
    return {name: shape[1] if len(shape) == 2 else bool(shape[2])}


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
