"""The names that LoRA files have for a network's layers.

Ours are those of the published files, but for the UNets: kohya's files for the host's picture models and PEFT's for SVD
have diffusers' names.
"""

import re
from collections.abc import Iterable

from ...families import SVD
from ...weights.keymap import KeyMap
from ..parts import MOTION, NO_PEFT, UNET

DIFFUSERS_SVD = SVD.parts["diffusion_model"].dialects["diffusers"]
DOWNSAMPLER = re.compile(rf"^{re.escape(UNET)}input_blocks\.(\d+)\.0\.op\.")
INPUT = re.compile(rf"^{re.escape(UNET)}input_blocks\.(\d+)\.")
PLACE = re.compile(rf"^{re.escape(UNET)}(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:1\.)?(.+)$")


def picture_names(layers: Iterable[str], network: Iterable[str]) -> dict[str, str]:
    """{layer of a spatial transformer of the host's picture UNet: diffusers' name}.

    `network` are all of the UNet's weights: they tell how many ResBlocks a level has. ValueError for a layer that is
    elsewhere.
    """
    per_level = _per_level(network)
    return {layer: _to_diffusers(layer, per_level) for layer in layers}


def _per_level(network: Iterable[str]) -> int:
    """ResBlocks of each level on the way down: those in front of the first downsampling, or all."""
    names = list(network)
    samplers = [int(fit.group(1)) for name in names if (fit := DOWNSAMPLER.match(name))]
    blocks = [int(fit.group(1)) for name in names if (fit := INPUT.match(name))]
    if not blocks:
        raise ValueError("The network is no UNet of pictures: it has no input_blocks.")
    return min(samplers) - 1 if samplers else max(blocks)


def _to_diffusers(layer: str, per_level: int) -> str:
    """input_blocks count each level's ResBlocks and its downsampling, behind conv_in; output_blocks one ResBlock more."""
    fit = PLACE.match(layer)
    if fit is None:
        raise ValueError(f"{layer} is no layer of a UNet of pictures.")
    way, number, inside = fit.group(1), int(fit.group(2)), fit.group(3)
    if way == "middle_block":
        return f"mid_block.attentions.0.{inside}"
    level, place = divmod(number - (way == "input_blocks"), per_level + 1)
    return f"{'down' if way == 'input_blocks' else 'up'}_blocks.{level}.attentions.{place}.{inside}"


def kohya_names(layers: Iterable[str], network: Iterable[str]) -> dict[str, str]:
    """{layer: its name in kohya's files}, dots still in place."""
    layers = list(layers)
    if is_picture_unet(layers):
        return picture_names(layers, network)
    return {layer: layer for layer in layers}


def peft_names(family: str, layers: Iterable[str]) -> dict[str, str]:
    """{layer: its name in the files of PEFT and diffusers}, with what is in front.

    ValueError for the host's picture models, whose LoRA loaders know no such names.
    """
    layers = list(layers)
    if is_picture_unet(layers):
        raise ValueError(NO_PEFT)
    if family == SVD.id:
        return {layer: f"unet.{_back(DIFFUSERS_SVD, layer)}" for layer in layers}
    return {layer: f"transformer.{layer}" for layer in layers}


def is_picture_unet(layers: Iterable[str]) -> bool:
    """Whether layers are of the host's picture UNet."""
    return all(layer.startswith(UNET) for layer in layers)


def motion_names(layers: Iterable[str], table: KeyMap) -> dict[str, str]:
    """{layer of AnimateDiff's motion modules: its name by a table of attention processors}."""
    return {layer: _back(table, layer.removeprefix(MOTION)) for layer in layers}


def _back(table: KeyMap, layer: str) -> str:
    """What a table calls one of our layers; ValueError where it has no name for it."""
    theirs = table.reverse().find(f"{layer}.weight")[1]
    if theirs is None:
        raise ValueError(
            f"Files of this kind have no name for {layer}. Choose another dialect or other layers."
        )
    return theirs.removesuffix(".weight")
