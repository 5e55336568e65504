"""Writes the trained parts as files in the published layouts, fp16."""

import json
from pathlib import Path
from typing import Any

from ..sd.ship import write_half, write_log
from ..sd.world import FRAMES
from ..shapes import SIZE
from ..svd.latents import preview_factors
from .parts import MODEL, MOTION, SETTINGS
from .text import Captions
from .train_base import trained_base
from .train_motion import trained_motion

LOG = MODEL.with_suffix(".json")
# the clips that the motion module was trained on
MOTION_SETTINGS = {"width": SIZE, "height": SIZE, "num_frames": FRAMES}


def model_settings() -> dict[str, Any]:
    """The words that the pack reads from the file's metadata beside its shapes."""
    factors, bias = preview_factors()
    return SETTINGS | {"latent_rgb_factors": factors, "latent_rgb_bias": bias}


def ship_pixart(runs: Path) -> None:
    """Running means of the last saved steps of every part that was begun, and the logs."""
    captions = Captions()
    names = ("base", "motion")
    parts = {
        name: runs / f"pixart_{name}" for name in names if (runs / f"pixart_{name}" / "state.pt").exists()
    }
    base = trained_base(parts["base"], captions)[0]
    write_half(dict(base.transformer.state_dict()), MODEL, config=json.dumps(model_settings()))
    if "motion" in parts:
        motion = trained_motion(parts["motion"], base, captions)[0].both["average"]
        write_half(dict(motion.state_dict()), MOTION, config=json.dumps(MOTION_SETTINGS))
    write_log(parts, LOG)
