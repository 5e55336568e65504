"""Encoder and decoder of the CogVideoX autoencoder, one chunk at a time.

CogVideoX (arXiv 2408.06072, sec. 2.1). Parameter names are those of the published checkpoints.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.operations import Operations, is_recorded
from .vae_layers import EPS, CausalCache, CausalConv, LatentNorm, ResnetBlock, normalised, prepare_norm
from .vae_slabs import collect, copy, join_frames


class Downsample(nn.Module):
    """Halve height and width and, with `fold_time`, the frames; an odd count keeps frame 0 as it is."""

    def __init__(self, channels: int, fold_time: bool, ops: Operations, **factory):
        super().__init__()
        self.fold_time = fold_time
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, stride=2, **factory)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        """Frame by frame, so that no second copy of the input is needed."""
        num_frames = x_bcthw.shape[2]
        step = 2 if self.fold_time else 1
        lone = num_frames % step
        starts = [0] * lone + list(range(lone, num_frames, step))
        stops = starts[1:] + [num_frames]
        averages = (x_bcthw[:, :, start:stop].mean(dim=2) for start, stop in zip(starts, stops, strict=True))
        folded = (self.conv(F.pad(frame, (0, 1, 0, 1))) for frame in averages)
        return join_frames(folded, [1] * len(starts))


class Upsample(nn.Module):
    """Double height and width and, with `unfold_time`, the frames; frame 0 of an odd count stays single.

    A lone frame stays single too where a clip begins, and is doubled where one goes on (`continues`).
    """

    def __init__(self, channels: int, unfold_time: bool, ops: Operations, **factory):
        super().__init__()
        self.unfold_time = unfold_time
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, padding=1, **factory)

    def forward(self, x_bcthw: Tensor, continues: bool) -> Tensor:
        """Frame by frame: both copies of a doubled frame are the same picture."""
        grown = (self.conv(F.interpolate(frame, scale_factor=2.0)) for frame in x_bcthw.unbind(dim=2))
        return join_frames(grown, self._copies(x_bcthw.shape[2], continues))

    def _copies(self, num_frames: int, continues: bool) -> list[int]:
        if not self.unfold_time:
            return [1] * num_frames
        stays = num_frames % 2 == 1 and not (num_frames == 1 and continues)
        return [1] * stays + [2] * (num_frames - stays)


class Level(nn.Module):
    """Resnet blocks of one resolution and, where there is one, the change to the next."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        num_blocks: int,
        groups: int,
        latent_channels: int | None,
        ops: Operations,
        **factory,
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(width_in, width_out, groups, latent_channels, ops, **factory)
            for width_in, width_out in zip(widths, widths[1:], strict=False)
        )


def _convolve(conv: CausalConv, x_bcthw: Tensor, cache: CausalCache) -> Tensor:
    if is_recorded():
        return conv(x_bcthw, cache)
    return collect(conv.sweep(x_bcthw, copy, cache), x_bcthw.shape[2])


def _finish(
    norm: Any, conv: CausalConv, x_bcthw: Tensor, z_bcthw: Tensor | None, cache: CausalCache
) -> Tensor:
    """Norm, SiLU and the last convolution."""
    if is_recorded():
        return conv(normalised(norm, x_bcthw, z_bcthw), cache)
    prepare = prepare_norm(norm, x_bcthw, z_bcthw, conv.ops)
    return collect(conv.sweep(x_bcthw, prepare, cache), x_bcthw.shape[2])


class Encoder(nn.Module):
    """Pixels of one chunk to the mean and log variance of its latents."""

    def __init__(
        self,
        widths: Sequence[int],
        blocks_per_level: int,
        latent_channels: int,
        groups: int,
        folding_levels: int,
        pixel_channels: int,
        ops: Operations,
        **factory,
    ):
        super().__init__()
        self.conv_in = CausalConv(pixel_channels, widths[0], ops, **factory)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, blocks_per_level, groups, None, ops, **factory)
            if i < len(widths) - 1:
                level.downsamplers = nn.ModuleList([Downsample(width, i < folding_levels, ops, **factory)])
            self.down_blocks.append(level)
        self.mid_block = Level(widths[-1], widths[-1], 2, groups, None, ops, **factory)
        self.norm_out = ops.GroupNorm(groups, widths[-1], eps=EPS, **factory)
        self.conv_out = CausalConv(widths[-1], 2 * latent_channels, ops, **factory)

    def forward(self, x_bcfhw: Tensor, cache: CausalCache) -> Tensor:
        hidden = _convolve(self.conv_in, x_bcfhw, cache)
        # One variable for all blocks: a call that runs a level would keep the level's input alive.
        for level in (*self.down_blocks, self.mid_block):
            for block in level.resnets:  # type: ignore[union-attr]
                hidden = block(hidden, None, cache)
            for downsample in getattr(level, "downsamplers", ()):
                hidden = downsample(hidden)
        return _finish(self.norm_out, self.conv_out, hidden, None, cache)


class Decoder(nn.Module):
    """Latents of one chunk to its pixels."""

    def __init__(
        self,
        widths: Sequence[int],
        blocks_per_level: int,
        latent_channels: int,
        groups: int,
        folding_levels: int,
        pixel_channels: int,
        ops: Operations,
        **factory,
    ):
        super().__init__()
        widths = list(reversed(widths))
        self.conv_in = CausalConv(latent_channels, widths[0], ops, **factory)
        self.mid_block = Level(widths[0], widths[0], 2, groups, latent_channels, ops, **factory)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[max(i - 1, 0)]
            level = Level(before, width, blocks_per_level + 1, groups, latent_channels, ops, **factory)
            if i < len(widths) - 1:
                level.upsamplers = nn.ModuleList([Upsample(width, i < folding_levels, ops, **factory)])
            self.up_blocks.append(level)
        self.norm_out = LatentNorm(widths[-1], latent_channels, groups, ops, **factory)
        self.conv_out = CausalConv(widths[-1], pixel_channels, ops, **factory)

    def forward(self, z_bcthw: Tensor, cache: CausalCache) -> Tensor:
        continues = cache.started
        hidden = _convolve(self.conv_in, z_bcthw, cache)
        # One variable for all blocks: a call that runs a level would keep the level's input alive.
        for level in (self.mid_block, *self.up_blocks):
            for block in level.resnets:  # type: ignore[union-attr]
                hidden = block(hidden, z_bcthw, cache)
            for upsample in getattr(level, "upsamplers", ()):
                hidden = upsample(hidden, continues)
        return _finish(self.norm_out, self.conv_out, hidden, z_bcthw, cache)
