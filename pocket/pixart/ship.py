"""Writes the trained parts as files in the published layouts, fp16."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..lora import LowRank
from ..sd.ship import write_half, write_log
from ..sd.world import FRAMES
from ..shapes import SIZE
from ..svd.latents import preview_factors
from .parts import MODEL, MOTION, SETTINGS, STYLE
from .text import Captions
from .train_base import trained_base
from .train_motion import trained_motion
from .train_style import ALPHA, trained_style

LOG = MODEL.with_suffix(".json")
# how EasyAnimate's LoRA files begin the name of a layer, whose dots become underscores
KOHYA = "lora_unet__"
# the clips that the motion module was trained on
MOTION_SETTINGS = {"width": SIZE, "height": SIZE, "num_frames": FRAMES}


def model_settings() -> dict[str, Any]:
    """The words that the pack reads from the file's metadata beside its shapes."""
    factors, bias = preview_factors()
    return SETTINGS | {"latent_rgb_factors": factors, "latent_rgb_bias": bias}


def kohya_weights(lora: LowRank) -> dict[str, Tensor]:
    """A LoRA under kohya's names."""
    weights = {}
    for layer, (down, up) in lora.halves().items():
        name = KOHYA + layer.replace(".", "_")
        halves = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
        weights |= {f"{name}.{half}": value for half, value in halves.items()}
    return weights


def ship_pixart(runs: Path) -> None:
    """Running means of the last saved steps of every part that was begun, and the logs."""
    captions = Captions()
    names = ("base", "motion", "style")
    parts = {
        name: runs / f"pixart_{name}" for name in names if (runs / f"pixart_{name}" / "state.pt").exists()
    }
    base = trained_base(parts["base"], captions)[0]
    write_half(dict(base.transformer.state_dict()), MODEL, config=json.dumps(model_settings()))
    if "motion" in parts:
        motion = trained_motion(parts["motion"], base, captions)[0].both["average"]
        write_half(dict(motion.state_dict()), MOTION, config=json.dumps(MOTION_SETTINGS))
    if "style" in parts:
        write_half(kohya_weights(trained_style(parts["style"], base, captions)), STYLE)
    write_log(parts, LOG)
