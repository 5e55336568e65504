"""EasyAnimate v1's motion modules onto a PixArt MODEL of this pack."""

import dataclasses
from typing import Any

from ...modules.families import EASYANIMATE, GRID_MODULES, PIXART
from ...modules.families.easyanimate.config import GridConfig
from ...modules.noise import Noise
from ...modules.weights.checkpoint import Checkpoint
from ...modules.weights.errors import CheckpointError
from ..host import backend, diffusion, guards, injection, patching
from ..host.description import attach, describe

KIND = GRID_MODULES.part.kind
FROM_FILE = "from the file"
PLACE = "diffusion_model.transformer_blocks.0.attn_temporal"


def check_file(checkpoint: Checkpoint, version: str) -> None:
    """CheckpointError unless a file holds all of EasyAnimate's motion modules, and nobody names it otherwise."""
    finding = checkpoint.find(EASYANIMATE, KIND)
    if version != FROM_FILE:
        raise CheckpointError(
            f"{finding.name} is {finding.what}, no AnimateDiff {version}: set version to '{FROM_FILE}'."
        )


def apply(
    model: Any, checkpoint: Checkpoint, strength: float, num_frames: int, noise: Noise | None, node: str
) -> Any:
    """A clone of a PixArt MODEL with motion modules; ValueError for a MODEL or a file that do not fit one another.

    `num_frames` are those of one clip of a batch, 0: all of it is one; `noise` is put in place of PixArt's schedule.
    """
    source = checkpoint.source(EASYANIMATE, KIND, backend.maps_weights())
    config: GridConfig = dataclasses.replace(source.finding.config, strength=strength)
    base = _base_of(model, source.finding.name, node)
    GRID_MODULES.check_fit(source.finding.name, config, base)
    layers = patching.Layers(GRID_MODULES, config, source.fill, source.check, source.notes)
    moving = patching.swap_layers(model, layers)
    if noise is not None:
        moving.add_object_patch("model_sampling", diffusion.sampling_of(noise))
    if num_frames:
        moving.add_object_patch("clip_frames", num_frames)
        injection.set_clip_frames(moving, num_frames)
    said = describe(model, node)
    told = {"label": f"{said.label} with EasyAnimate v1", "grid": config.grid, "noise": noise or said.noise}
    attach(moving, dataclasses.replace(said, **told, native_size=config.native_size, limits=config.limits))
    guards.guard_clips(moving, config.check_clip)
    return moving


def _base_of(model: Any, file: str, node: str) -> Any:
    """The config of a PixArt MODEL without motion; ValueError for any other MODEL."""
    recipe = getattr(model.model, "recipe", None)
    if recipe is None or recipe.family.id != PIXART.id:
        label = type(model.model).__name__ if recipe is None else recipe.label
        raise ValueError(
            f"{file} is EasyAnimate v1's motion module, for PixArt: {node} got {label}. Load PixArt-XL-2-512x512 with "
            "PixArt Loader, or choose a motion module of AnimateDiff for SD1.5 and SDXL."
        )
    if any(key.startswith(PLACE) for key in model.object_patches):
        raise ValueError(f"This model has motion modules already: use one {node} a model.")
    return recipe.config
