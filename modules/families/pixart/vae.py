"""The autoencoders of pictures that PixArt goes with: Stable Diffusion's, and TAESD in its place. The host builds both.

Here they are recognised alone. Stable Diffusion's (arXiv 2112.10752) by diffusers' names or the original ones; TAESD
(madebyollin/taesd) by the names under which ComfyUI keeps its two halves together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...weights.keymap import KeyMap, Rows, originals, same
from ...weights.part import Shapes, check_groups, count_numbered, lengths
from ..svd.config import LATENT_SCALE
from ..svd.keys import ENCODER, IMAGE_DECODER, QUANT
from ..svd.temporal import GROUPS
from .config import GRID

Named = Iterator[tuple[str, tuple[int, ...]]]
PIXELS = 3

QUANTS: Rows = (*QUANT, *same("post_quant_conv.{p}"))
# what diffusers called the layers of attention before 0.17
OLD_ATTENTION = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
OLD: Rows = tuple(
    (f"{half}.mid_block.attentions.0.{theirs}.{{p}}", f"{half}.mid.attn_1.{ours}.{{p}}")
    for half in ("encoder", "decoder")
    for theirs, ours in OLD_ATTENTION.items()
)
DIFFUSERS = KeyMap(*ENCODER, *IMAGE_DECODER, *QUANTS, *OLD)
ORIGINAL = KeyMap(*originals(ENCODER), *originals(IMAGE_DECODER), *QUANTS)
TINY = KeyMap(
    *same(*(f"taesd_{half}.{{n}}.{{p}}" for half in ("encoder", "decoder"))),
    *same(*(f"taesd_{half}.{{n}}.conv.{{m}}.{{p}}" for half in ("encoder", "decoder"))),
    *same("vae_scale", "vae_shift"),
)


@dataclass(frozen=True)
class KLConfig:
    """Sizes of one autoencoder of Stable Diffusion. Defaults are those of every published one."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # per resolution, the finest first
    num_res_blocks: int = 2  # per resolution on the way down, one more on the way up


def read_kl_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> KLConfig:
    """Config of an autoencoder from its key -> shape list in the original naming; ValueError for other latents."""
    latents = lengths(shapes, "decoder.conv_in.weight", 4)[1]
    if latents != GRID.channels:
        raise ValueError(
            f"its latents have {latents} channels, those of PixArt {GRID.channels}: use the VAE of SD1.5."
        )
    scale = (settings or {}).get("scaling_factor", LATENT_SCALE)
    if scale != LATENT_SCALE:
        raise ValueError(
            f"its latents are scaled by {scale}, those of PixArt by {LATENT_SCALE}, as the VAE of SD1.5: SDXL has another one. "
            "Use the VAE of SD1.5."
        )
    levels = count_numbered(shapes, "encoder.down.")
    channels = tuple(lengths(shapes, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels))
    check_groups(channels, GROUPS)
    return KLConfig(channels, count_numbered(shapes, "encoder.down.0.block."))


def kl_shapes(config: KLConfig) -> Shapes:
    """Key -> shape of every weight, in the original naming."""
    return dict((*_kl_encoder(config), *_kl_decoder(config)))


def _layer(name: str, *shape: int) -> Named:
    """A layer with a bias; of one length: a norm."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _res_block(place: str, before: int, channels: int) -> Named:
    yield from _layer(f"{place}.norm1", before)
    yield from _layer(f"{place}.conv1", channels, before, 3, 3)
    yield from _layer(f"{place}.norm2", channels)
    yield from _layer(f"{place}.conv2", channels, channels, 3, 3)
    if before != channels:
        yield from _layer(f"{place}.nin_shortcut", channels, before, 1, 1)


def _middle(half: str, channels: int) -> Named:
    for block in ("block_1", "block_2"):
        yield from _res_block(f"{half}.mid.{block}", channels, channels)
    yield from _layer(f"{half}.mid.attn_1.norm", channels)
    for name in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{half}.mid.attn_1.{name}", channels, channels, 1, 1)


def _kl_encoder(config: KLConfig) -> Named:
    before, last = config.channels[0], config.channels[-1]
    yield from _layer("encoder.conv_in", before, PIXELS, 3, 3)
    for level, channels in enumerate(config.channels):
        for block in range(config.num_res_blocks):
            yield from _res_block(f"encoder.down.{level}.block.{block}", before, channels)
            before = channels
        if level < len(config.channels) - 1:
            yield from _layer(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
    yield from _middle("encoder", last)
    yield from _layer("encoder.norm_out", last)
    yield from _layer("encoder.conv_out", 2 * GRID.channels, last, 3, 3)
    yield from _layer("quant_conv", 2 * GRID.channels, 2 * GRID.channels, 1, 1)


def _kl_decoder(config: KLConfig) -> Named:
    before = config.channels[-1]
    yield from _layer("post_quant_conv", GRID.channels, GRID.channels, 1, 1)
    yield from _layer("decoder.conv_in", before, GRID.channels, 3, 3)
    yield from _middle("decoder", before)
    for level, channels in reversed(list(enumerate(config.channels))):
        for block in range(config.num_res_blocks + 1):
            yield from _res_block(f"decoder.up.{level}.block.{block}", before, channels)
            before = channels
        if level:
            yield from _layer(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    yield from _layer("decoder.norm_out", before)
    yield from _layer("decoder.conv_out", PIXELS, before, 3, 3)


@dataclass(frozen=True)
class TinyConfig:
    """TAESD has one size."""

    width: int = 64


def read_tiny_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> TinyConfig:
    """TAESD's config; ValueError for latents of another kind."""
    latents = lengths(shapes, "taesd_decoder.1.weight", 4)[1]
    if latents != GRID.channels:
        raise ValueError(
            f"its latents have {latents} channels, those of PixArt {GRID.channels}: use TAESD of SD1.5."
        )
    return TinyConfig()


# what stands at the places of TAESD's two halves: a convolution with bias, one without, a block of three; else nothing
HALVES = {"encoder": "c b n bbb n bbb n bbb c", "decoder": "- c - bbb - n bbb - n bbb - n b c"}


def tiny_shapes(config: TinyConfig) -> Shapes:
    """Key -> shape of every weight of TAESD."""
    ends = {"encoder": (PIXELS, GRID.channels), "decoder": (GRID.channels, PIXELS)}
    shapes: dict[str, tuple[int, ...]] = {"vae_scale": (), "vae_shift": ()}
    for half, pattern in HALVES.items():
        layers = pattern.replace(" ", "")
        for place, layer in enumerate(layers):
            name, (into, out) = f"taesd_{half}.{place}", ends[half]
            first, last = place == layers.index("c"), place == len(layers) - 1
            shape = (out if last else config.width, into if first else config.width, 3, 3)
            if layer == "c":
                shapes |= _layer(name, *shape)
            elif layer == "n":
                shapes[f"{name}.weight"] = shape
            elif layer == "b":
                for step in (0, 2, 4):
                    shapes |= _layer(f"{name}.conv.{step}", *shape)
    return shapes
