"""The CogVideoX video autoencoder: 4 frames and 8x8 pixels to one latent cell, chunk by chunk.

CogVideoX (arXiv 2408.06072, sec. 2.1). The chunks are part of the function: group norms see one chunk at a
time, so other chunk lengths give another picture than the one the model was trained to give.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...layers.attention import Attention
from ...layers.network import Factory, Network
from ...layers.operations import Operations
from ...weights.part import Shapes, check_groups, count_numbered, lengths
from ...weights.settings import whole
from .vae_coders import Decoder, Encoder
from .vae_layers import CausalCache

Schedule = Literal["base", "fun"]

FRAMES_PER_CHUNK = 8
LATENTS_PER_CHUNK = 2


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of one CogVideoX autoencoder. Defaults are those of every published checkpoint."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    layers_per_block: int = 3
    latent_channels: int = 16
    norm_groups: int = 32
    folding_levels: int = 2  # resolutions that also halve the frames
    pixel_channels: int = 3
    schedule: Schedule = "base"

    def __post_init__(self) -> None:
        if self.schedule not in ("base", "fun"):
            raise ValueError(f'schedule must be "base" or "fun": got {self.schedule!r}.')

    @property
    def stride_hw(self) -> int:
        """Pixels per latent cell on each axis."""
        return 2 ** (len(self.block_out_channels) - 1)


def read_vae_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> VAEConfig:
    """Config of an autoencoder from its key -> shape list in diffusers naming.

    `settings` are the words of a diffusers `config.json` where one lies beside the weights; only
    `norm_num_groups` is read, which no shape can tell. Raises ValueError where it does not divide the channels.
    """
    settings = settings or {}
    levels = count_numbered(shapes, "encoder.down_blocks.")
    blocks = count_numbered(shapes, "encoder.down_blocks.0.resnets.")
    firsts = (f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight" for i in range(max(levels, 1)))
    widths = tuple(lengths(shapes, key, 5)[0] for key in firsts)
    groups = whole(settings, "norm_num_groups", VAEConfig.norm_groups, max(widths))
    check_groups(widths, groups)
    return VAEConfig(
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=lengths(shapes, "decoder.conv_in.conv.weight", 5)[1],
        norm_groups=groups,
        pixel_channels=lengths(shapes, "encoder.conv_in.conv.weight", 5)[1],
    )


def frame_chunks(frames: int, size: int) -> list[int]:
    """Lengths of the chunks of the base schedule: the remainder joins the first chunk.

    49 frames by 8: 9, 8, 8, 8, 8, 8. Fewer frames than `size` are one chunk.
    """
    if frames <= size:
        return [frames]
    return [size + frames % size] + [size] * (frames // size - 1)


def latent_chunks(latents: int, schedule: Schedule) -> list[int]:
    """Lengths of the chunks that `latents` latent frames are decoded in.

    CogVideoX-Fun from V1.5 on decodes latent 0 alone, then pairs, and doubles a lone last one, so that n
    latents always give 4n - 3 frames. The base schedule gives 4n - 3 for odd and 4n for even n.
    """
    if schedule == "base":
        return frame_chunks(latents, LATENTS_PER_CHUNK)
    pairs, rest = divmod(latents - 1, LATENTS_PER_CHUNK)
    return [1] + [LATENTS_PER_CHUNK] * pairs + [1] * rest


class CogVideoXVAE(Network):
    """Encoder and decoder. Pixels lie in [-1, 1]; latents are raw, without the family's scale."""

    # Activations live at the peak of a chunk, of a clip of any length, in numbers for every pixel; counted on meta
    # tensors (tests/modules/test_cogvideox_vae_memory.py).
    numbers_per_pixel = 8100

    def assemble(self, config: VAEConfig, ops: Operations, _: Attention, factory: Factory) -> None:
        sizes = (
            config.block_out_channels,
            config.layers_per_block,
            config.latent_channels,
            config.norm_groups,
            config.folding_levels,
            config.pixel_channels,
        )
        self.encoder = Encoder(*sizes, ops=ops, **factory)
        self.decoder = Decoder(*sizes, ops=ops, **factory)

    def encode_moments(self, x_bcfhw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (b, c, t, h, w) of the latents of pixels in [-1, 1]."""
        moments = [torch.cat(chunk, dim=1) for chunk in self.encode_stream([x_bcfhw], x_bcfhw.shape[2])]
        mean, logvar = torch.cat(moments, dim=2).chunk(2, dim=1)
        return mean, logvar

    def encode(self, x_bcfhw: Tensor) -> Tensor:
        """The most likely latents of pixels in [-1, 1]."""
        return self.encode_moments(x_bcfhw)[0]

    def encode_stream(
        self,
        clips_bcfhw: Iterable[Tensor],
        num_frames: int,
        cache_device: torch.device | str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and log variance, chunk by chunk, of `num_frames` frames that arrive in pieces of any length.

        The count must be known beforehand: the remainder belongs to the first chunk. ValueError when the
        pieces hold another number of frames.
        """
        cache = CausalCache(cache_device)
        for chunk in regroup(clips_bcfhw, frame_chunks(num_frames, FRAMES_PER_CHUNK)):
            self._check_pixels(chunk)
            mean, logvar = self.encoder(chunk, cache).chunk(2, dim=1)
            yield mean, logvar

    def decode(self, z_bcthw: Tensor) -> Tensor:
        """Pixels, about [-1, 1], of raw latents; their number follows the schedule."""
        return torch.cat(list(self.decode_stream(z_bcthw)), dim=2)

    def decode_stream(
        self,
        z_bcthw: Tensor,
        cache_device: torch.device | str | None = None,
    ) -> Iterator[Tensor]:
        """Pixels (b, c, f, h, w) of raw latents, chunk by chunk: memory does not grow with the clip."""
        cache = CausalCache(cache_device)
        for chunk in z_bcthw.split(latent_chunks(z_bcthw.shape[2], self.config.schedule), dim=2):
            yield self.decoder(chunk, cache)

    def decoded_frames(self, latents: int) -> int:
        """Pixel frames that `latents` latent frames decode to."""
        stride = 2**self.config.folding_levels
        lone = latents % 2 if self.config.schedule == "base" else 1
        return (latents - lone) * stride + lone

    def _check_pixels(self, x_bcfhw: Tensor) -> None:
        _, channels, _, height, width = x_bcfhw.shape
        stride = self.config.stride_hw
        if channels != self.config.pixel_channels or height % stride or width % stride:
            raise ValueError(
                f"The autoencoder takes {self.config.pixel_channels} channels and sizes that are multiples of "
                f"{stride} pixels: got {channels} channels, {width}x{height}."
            )


def regroup(clips_bcfhw: Iterable[Tensor], lengths: list[int]) -> Iterator[Tensor]:
    """The same frames in pieces of the given lengths; ValueError when the total differs."""
    source = iter(clips_bcfhw)
    waiting: list[Tensor] = []
    for length in lengths:
        while sum(piece.shape[2] for piece in waiting) < length:
            piece = next(source, None)
            if piece is None:
                got = sum(p.shape[2] for p in waiting)
                raise ValueError(
                    f"The clip ended early: {sum(lengths)} frames were announced, {got} of "
                    f"the last {length} arrived."
                )
            waiting.append(piece)
        frames = waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=2)
        waiting = [frames[:, :, length:]]
        yield frames[:, :, :length]
    if waiting[0].shape[2] or next(source, None) is not None:
        raise ValueError(f"More frames arrived than the {sum(lengths)} that were announced.")
