"""Writes the trained base as a file in the published layout, fp16."""

import json
from pathlib import Path
from typing import Any

from ..sd.ship import write_half, write_log
from ..svd.latents import preview_factors
from .parts import MODEL, SETTINGS
from .text import Captions
from .train_base import trained_base

LOG = MODEL.with_suffix(".json")


def model_settings() -> dict[str, Any]:
    """The words that the pack reads from the file's metadata beside its shapes."""
    factors, bias = preview_factors()
    return SETTINGS | {"latent_rgb_factors": factors, "latent_rgb_bias": bias}


def ship_pixart(runs: Path) -> None:
    """The running mean of the last saved step, and the log."""
    run = runs / "pixart_base"
    base = trained_base(run, Captions())[0]
    write_half(dict(base.transformer.state_dict()), MODEL, config=json.dumps(model_settings()))
    write_log({"base": run}, LOG)
