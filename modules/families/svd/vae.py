"""The Stable Video Diffusion autoencoder: 8x8 pixels to one latent cell, frames on the batch axis.

Stable Video Diffusion (arXiv 2311.15127), appendix D: Stable Diffusion's encoder, and its decoder fine-tuned
with temporal layers. The frames of one call are one clip to the decoder: other chunks give another picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...layers.attention import Attention
from ...layers.network import Factory, Network
from ...layers.operations import Operations
from ...weights.part import Shapes, check_groups, count_numbered, lengths
from .temporal import GROUPS
from .vae_coders import PIXEL_CHANNELS, Encoder, TemporalDecoder


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of one SVD autoencoder. Defaults are those of every published checkpoint."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # per resolution, the finest first
    num_res_blocks: int = 2  # per resolution on the way down, one more on the way up
    latent_channels: int = 4
    quant_conv: bool = False  # a pointwise convolution after the encoder; diffusers' files have it

    @property
    def stride_hw(self) -> int:
        """Pixels per latent cell on each axis."""
        return 2 ** (len(self.channels) - 1)


def read_vae_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> VAEConfig:
    """Config of an autoencoder, or of its encoder alone, from its key -> shape list in original naming.

    `settings` are not needed: the shapes tell everything.
    """
    levels = count_numbered(shapes, "encoder.down.")
    blocks = count_numbered(shapes, "encoder.down.0.block.")
    firsts = (f"encoder.down.{i}.block.0.conv1.weight" for i in range(max(levels, 1)))
    channels = tuple(lengths(shapes, key, 4)[0] for key in firsts)
    check_groups(channels, GROUPS)
    return VAEConfig(
        channels=channels,
        num_res_blocks=blocks,
        latent_channels=lengths(shapes, "encoder.conv_out.weight", 4)[0] // 2,
        quant_conv="quant_conv.weight" in shapes,
    )


def sizes_of(config: VAEConfig) -> tuple[tuple[int, ...], int, int]:
    """What encoder and decoder are told of a config."""
    return config.channels, config.num_res_blocks, config.latent_channels


class KLEncoder(Network):
    """The encoder alone: what the conditioning image of a checkpoint passes. Pixels lie in [-1, 1]."""

    # Activations live at the peak of one frame of 1024x576, which large frames pass one after another, in
    # numbers for every pixel; counted on fake tensors (tests/modules/test_svd_vae_memory.py).
    encode_numbers_per_pixel = 330

    def assemble(self, config: VAEConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        self.encoder = Encoder(*sizes_of(config), ops=ops, attention=attention, **factory)
        moments = 2 * config.latent_channels
        self.quant_conv = None
        if config.quant_conv:
            self.quant_conv = ops.Conv2d(moments, moments, kernel_size=1, **factory)

    def encode_moments(self, x_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, 4, h / 8, w / 8) of the latents of pixels in [-1, 1].

        ValueError for other than 3 channels and for sizes that are no multiple of 8.
        """
        self._check_pixels(x_nchw)
        moments = self.encoder(x_nchw)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance

    def encode(self, x_nchw: Tensor) -> Tensor:
        """The most likely latents, raw: without the family's scale."""
        return self.encode_moments(x_nchw)[0]

    def _check_pixels(self, x_nchw: Tensor) -> None:
        _, channels, height, width = x_nchw.shape
        stride = self.config.stride_hw
        if channels != PIXEL_CHANNELS or height % stride or width % stride:
            raise ValueError(
                f"The autoencoder takes {PIXEL_CHANNELS} channels and sizes that are multiples of {stride} "
                f"pixels: got {channels} channels, {width}x{height}."
            )


class SVDVAE(KLEncoder):
    """Encoder and temporal decoder. Pixels lie in [-1, 1]; latents are raw, without the family's scale."""

    # As `encode_numbers_per_pixel`, but every frame of a clip stays: for each frame, and once for a call.
    decode_numbers_per_pixel = 264
    decode_numbers_once_per_pixel = 176

    def assemble(self, config: VAEConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        super().assemble(config, ops, attention, factory)
        self.decoder = TemporalDecoder(*sizes_of(config), ops=ops, attention=attention, **factory)

    def decode(self, z_nchw: Tensor) -> Tensor:
        """Pixels (n, 3, h, w), about [-1, 1], of the raw latents of one clip."""
        return self.decoder(z_nchw)
