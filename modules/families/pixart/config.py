"""What distinguishes the PixArt-alpha checkpoints, read from the shapes of their weights.

PixArt-alpha (arXiv 2310.00426): XL-2 for pictures of about 512x512, and 1024-MS, which is told a picture's size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ...grid import LatentGrid
from ...weights.part import Shapes, count_numbered, lengths
from ...weights.settings import REMEDY, colours, whole
from ..family import LatentSpace
from ..svd.config import LATENT_SCALE, RGB_FACTORS
from .keys import SILENCE, TABLE

# The VAE of Stable Diffusion, as SVD's; a token is two latent cells wide and high. Frames lie on the batch axis.
GRID = LatentGrid(channels=4, stride_t=1, stride_hw=8, lone_first=False, patch_hw=2)
HEAD_DIM = 72  # of every published checkpoint: 16 heads
# tokens that prompts were cut to in training
MAX_TEXT_TOKENS = 120
# latent cells on a side of the pictures that a checkpoint was trained on, without and with their size told to it
PLAIN, SIZED = 64, 128
MAX_CELLS = 2048
# of EasyAnimate v1's model that paints into a clip: noise, mask, clip
INPAINT_CHANNELS = 9


@dataclass(frozen=True)
class PixArtConfig:
    """Sizes of one PixArt transformer. Defaults are those of the 512 base."""

    num_layers: int = 28
    num_heads: int = 16
    head_dim: int = HEAD_DIM
    in_channels: int = 4
    text_dim: int = 4096
    # whether it is told the height, width and aspect of the picture (1024-MS)
    sized: bool = False
    # latent cells on a side of the pictures that it was trained on
    sample_size: int = PLAIN
    latents: LatentSpace = LatentSpace(LATENT_SCALE, RGB_FACTORS)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_heads * self.head_dim

    @property
    def span(self) -> float:
        """What positions run to along either axis, whatever the picture's size: 32 in every published checkpoint."""
        return self.sample_size / GRID.patch_hw / max(self.sample_size // PLAIN, 1)

    @property
    def native_size(self) -> tuple[int, int, int]:
        """(width, height, frames) in pixels that it was trained on."""
        side = self.sample_size * GRID.stride_hw
        return side, side, 1

    @property
    def variant(self) -> str:
        """The published name of this kind of checkpoint."""
        return "1024-MS" if self.sized else str(self.native_size[0])


# The published networks.
PUBLISHED = (PixArtConfig(), PixArtConfig(sized=True, sample_size=SIZED))


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> PixArtConfig:
    """Config of a transformer from its key -> shape list in diffusers naming.

    `settings` are the words of a diffusers `config.json`, or of a single file's own metadata; they decide what no shape
    tells: the heads and the size of pictures. Raises ValueError when the shapes are those of another model.
    """
    settings = settings or {}
    width, in_channels = lengths(shapes, "pos_embed.proj.weight", 4)[:2]
    _check_channels(in_channels, lengths(shapes, "proj_out.weight", 2)[0])
    sized = "adaln_single.emb.resolution_embedder.linear_1.weight" in shapes
    sample_size = _sample_size(shapes, settings, sized)
    _check_release(shapes, sized, sample_size)
    heads = whole(settings, "num_attention_heads", max(width // HEAD_DIM, 1), width)
    if width % heads:
        raise ValueError(
            f"PixArt with {heads} heads for {width} channels, which they do not divide. {REMEDY}"
        )
    return PixArtConfig(
        num_layers=count_numbered(shapes, "transformer_blocks."),
        num_heads=heads,
        head_dim=width // heads,
        in_channels=in_channels,
        text_dim=lengths(shapes, "caption_projection.linear_1.weight", 2)[1],
        sized=sized,
        sample_size=sample_size,
        latents=LatentSpace(LATENT_SCALE, *colours(settings, in_channels, RGB_FACTORS)),
    )


def _sample_size(shapes: Shapes, settings: Mapping[str, Any], sized: bool) -> int:
    """Latent cells on a side of its pictures: as its settings or its own position table tell, else as published."""
    usual = SIZED if sized else PLAIN
    if TABLE in shapes:
        usual = GRID.patch_hw * isqrt(lengths(shapes, TABLE, 3)[1])
    return whole(settings, "sample_size", usual, MAX_CELLS, GRID.patch_hw)


def _check_release(shapes: Shapes, sized: bool, sample_size: int) -> None:
    """ValueError for PixArt-Sigma, which has other texts, latents and sizes under the same names."""
    tokens = lengths(shapes, SILENCE, 2)[0] if SILENCE in shapes else MAX_TEXT_TOKENS
    if tokens != MAX_TEXT_TOKENS or (sample_size >= SIZED and not sized):
        raise ValueError(
            f"it is PixArt-Sigma ({tokens} text tokens, {'' if sized else 'not '}told a picture's size), whose latents are "
            "those of SDXL. Use PixArt-alpha (PixArt-XL-2-512x512 or 1024-MS); ComfyUI itself opens PixArt-Sigma."
        )


def _check_channels(in_channels: int, out_rows: int) -> None:
    """ValueError unless noise goes in, and noise and its learned variance come out."""
    if in_channels == INPAINT_CHANNELS:
        raise ValueError(
            "it takes 9 channels: noise, mask and a clip, as EasyAnimate v1's model for painting into a clip, which was never "
            "published and is not supported. Use a PixArt-XL-2 of 4 channels; InpaintConditioning of CogVideoX-Fun InP "
            "paints into clips."
        )
    if in_channels != GRID.channels or out_rows != 2 * GRID.channels * GRID.patch_hw**2:
        raise ValueError(
            f"PixArt-alpha takes {GRID.channels} channels and gives {2 * GRID.channels * GRID.patch_hw**2} numbers a token: "
            f"this file has {in_channels} and {out_rows}. Use PixArt-XL-2-512x512 or PixArt-XL-2-1024-MS."
        )


def untold(config: PixArtConfig) -> dict[str, int]:
    """What no shape tells of a transformer, in the words of its config.json."""
    return {"num_attention_heads": config.num_heads, "sample_size": config.sample_size}
