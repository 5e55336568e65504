"""Weights that were trained whole, in the layouts of the published files: motion modules, ExVideo's branches, networks."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...families import ANIMATEDIFF, EASYANIMATE, FAMILIES, SVD
from ...families.easyanimate.config import ROWS
from ...families.family import Size
from ...layers.temporal_block import sinusoid_table
from ...weights.part import Part, Shapes
from ..parts import BRANCH, MODULES, MOTION, UNET

Tensors = dict[str, Tensor]
# in front of a UNet in the files of Stability AI; the other networks stand alone
PREFIX = "model.diffusion_model."
TABLE = ".attention_blocks.{}.pos_encoder.pe"
BLOCK = ".temporal_transformer.transformer_blocks.0"
OUT = ".temporal_transformer.proj_out.weight"


def motion_module(
    state: Mapping[str, Tensor], config: Any, size: Size | None
) -> tuple[Tensors, dict[str, str]]:
    """(AnimateDiff's motion modules with their tables, or EasyAnimate's, metadata) of a network's state.

    `config` and `size`, of the clips that they were trained on, are EasyAnimate's alone.
    """
    modules = {key.removeprefix(MOTION): value for key, value in state.items() if MODULES.search(key)}
    if any(".attn_temporal." in key for key in modules):
        return _grid_modules(modules, config, size)
    part = ANIMATEDIFF.parts["motion_module"]
    check_whole(part, modules, part.read_config(shapes_of(modules), None))
    return renamed(modules, part, "original"), {}


def check_begun(tensors: Mapping[str, Tensor]) -> None:
    """ValueError for motion modules that still change nothing."""
    idle = [key for key, value in tensors.items() if key.endswith(OUT) and not value.any()]
    if idle:
        raise ValueError(
            f"{len(idle)} motion modules change nothing yet (the first is {idle[0].removesuffix(OUT)}): their last layers are "
            "zero, as before the first step. Train on, then save."
        )


def _grid_modules(modules: Tensors, config: Any, size: Size | None) -> tuple[Tensors, dict[str, str]]:
    """EasyAnimate's, with the sinusoids that its own reader looks for."""
    part = EASYANIMATE.parts["motion_module"]
    check_whole(part, modules, config)
    table = sinusoid_table(ROWS, config.width)[None].to(next(iter(modules.values())).device)
    tables = {
        f"transformer_blocks.{block}.attn_temporal{BLOCK}{TABLE.format(attention)}": table.clone()
        for block in range(config.num_layers)
        for attention in range(config.block.attentions)
    }
    settings = {**part.untold(config), **_size_settings(size)}
    return {**renamed(modules, part, "original"), **tables}, {"config": json.dumps(settings)}


def exvideo(state: Mapping[str, Tensor], config: Any, size: Size | None) -> tuple[Tensors, dict[str, str]]:
    """ExVideo's branches of an SVD of this config; `size` is that of the clips that they were trained on."""
    part = SVD.parts["extension"]
    branches = {key: value for key, value in state.items() if BRANCH.search(key)}
    check_whole(part, branches, config)
    settings = {"head_dim": config.head_dim, **_size_settings(size)}
    return renamed(branches, part, "diffsynth"), {"config": json.dumps(settings)}


def whole(family: str, state: Mapping[str, Tensor], config: Any) -> tuple[Tensors, dict[str, str]]:
    """A whole network under the names of its published files, which are ours; motion modules in it are left out."""
    own = {key: value for key, value in state.items() if not MODULES.search(key)}
    if family == ANIMATEDIFF.id:
        return {PREFIX + key.removeprefix(UNET): value for key, value in own.items()}, {}
    part = next(one for one in FAMILIES if one.id == family).parts["diffusion_model"]
    check_whole(part, own, config)
    prefix = PREFIX if family == SVD.id else ""
    told = json.dumps(settings_of(part, shapes_of(own), config))
    return {prefix + key: value for key, value in own.items()}, {"config": told}


def settings_of(part: Part, shapes: Shapes, config: Any) -> dict[str, Any]:
    """What no shape tells of a network, in the words of its config.json; ValueError where that is not enough."""
    settings: dict[str, Any] = dict(part.untold(config))
    if part.read_config(shapes, settings) != config:
        latents = config.latents
        settings |= {"latent_rgb_factors": latents.rgb_factors, "latent_rgb_bias": latents.rgb_bias}
    if part.read_config(shapes, settings) != config:
        raise ValueError(f"A file cannot tell all of {config}: it would be loaded as another model.")
    return settings


def _size_settings(size: Size | None) -> dict[str, int]:
    return {} if size is None else dict(zip(("width", "height", "num_frames"), size, strict=True))


def check_whole(part: Part, tensors: Mapping[str, Tensor], config: Any) -> None:
    """ValueError unless there are exactly the weights that a file of this kind holds."""
    wanted, here = part.shapes(config), shapes_of(tensors)
    if here != wanted:
        off = [key for key in {**wanted, **here} if here.get(key) != wanted.get(key)]
        raise ValueError(
            f"{len(off)} of the weights of a {part.variant(config)} {part.kind} are missing, too many or of another shape: "
            f"{', '.join(off[:3])}."
        )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Key -> shape."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def renamed(tensors: Mapping[str, Tensor], part: Part, dialect: str) -> Tensors:
    """Tensors under the names that a dialect has for ours; UnknownKeys for one that it has none for."""
    names = part.dialects[dialect].reverse().rename(tensors)
    return {theirs: tensors[ours] for ours, theirs in names.items() if theirs is not None}
