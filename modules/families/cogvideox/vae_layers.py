"""Building blocks of the CogVideoX video autoencoder: causal convolutions and what stands between them.

CogVideoX (arXiv 2408.06072, sec. 2.1). A clip passes in chunks of frames; every causal convolution keeps
the last two frames it saw, so that the next chunk continues where this one ended. Parameter names are those
of the published checkpoints.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...layers.operations import Operations

EPS = 1e-6
KEPT_FRAMES = 2  # a kernel three frames long looks two frames back


class CausalCache:
    """What the causal convolutions of one pass over one clip remember between chunks.

    With `device` the frames rest there between chunks, usually "cpu" to save accelerator memory.
    """

    def __init__(self, device: torch.device | str | None = None):
        self.device = device
        self._frames: dict[nn.Module, Tensor] = {}

    @property
    def started(self) -> bool:
        """Whether a chunk has passed."""
        return bool(self._frames)

    def take(self, layer: nn.Module, like: Tensor) -> Tensor | None:
        """The last frames that `layer` saw, or None in the first chunk."""
        frames = self._frames.pop(layer, None)
        return None if frames is None else frames.to(like.device)

    def put(self, layer: nn.Module, frames_bcthw: Tensor) -> None:
        """Remember copies of the last frames that `layer` saw."""
        device = self.device or frames_bcthw.device
        kept = frames_bcthw.to(device)
        self._frames[layer] = kept.clone() if kept.data_ptr() == frames_bcthw.data_ptr() else kept


class CausalConv(nn.Module):
    """A 3x3x3 convolution that sees the past only: before frame 0 stands frame 0, twice."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **place):
        super().__init__()
        self.conv = ops.Conv3d(channels_in, channels_out, kernel_size=3, padding=(0, 1, 1), **place)

    def forward(self, x_bcthw: Tensor, cache: CausalCache) -> Tensor:
        past = cache.take(self, x_bcthw)
        if past is None:
            past = x_bcthw[:, :, :1].expand(-1, -1, KEPT_FRAMES, -1, -1)
        x_bcthw = torch.cat([past, x_bcthw], dim=2)
        cache.put(self, x_bcthw[:, :, -KEPT_FRAMES:])
        return self.conv(x_bcthw)


class PointConv(nn.Module):
    """A 1x1x1 convolution under the name that the checkpoints give it."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **place):
        super().__init__()
        self.conv = ops.Conv3d(channels_in, channels_out, kernel_size=1, **place)


def mix_channels(conv: nn.Module, x_bcthw: Tensor, ops: Operations) -> Tensor:
    """A 1x1x1 convolution as one matrix product: CPU kernels for pointwise conv3d are slow."""
    weight, bias = ops.weights(conv, x_bcthw)
    y_bcn = torch.matmul(weight.flatten(1), x_bcthw.flatten(2))
    if bias is not None:
        y_bcn = y_bcn + bias[:, None]
    return y_bcn.unflatten(2, x_bcthw.shape[2:])


class LatentNorm(nn.Module):
    """Group norm whose scale and shift are pointwise functions of the latent (decoder only).

    A pointwise convolution commutes with nearest resizing, so both maps are made at the latent's size and
    broadcast over the block of pixels and frames that a latent cell stands for.
    """

    def __init__(self, channels: int, latent_channels: int, groups: int, ops: Operations, **place):
        super().__init__()
        self.ops = ops
        self.norm_layer = ops.GroupNorm(groups, channels, eps=EPS, **place)
        self.conv_y = PointConv(latent_channels, channels, ops, **place)
        self.conv_b = PointConv(latent_channels, channels, ops, **place)

    def forward(self, x_bcthw: Tensor, z_bcthw: Tensor) -> Tensor:
        scale = mix_channels(self.conv_y.conv, z_bcthw, self.ops)
        shift = mix_channels(self.conv_b.conv, z_bcthw, self.ops)
        return modulate(self.norm_layer(x_bcthw), scale, shift)


def modulate(x_bcthw: Tensor, scale_bcthw: Tensor, shift_bcthw: Tensor) -> Tensor:
    """x * scale + shift with both maps resized to x by nearest neighbour.

    An odd number of frames above one starts with a frame that has a latent frame of its own.
    """
    frames = x_bcthw.shape[2]
    if frames == 1 or frames % 2 == 0:
        return _modulate_blocks(x_bcthw, scale_bcthw, shift_bcthw)
    parts = [
        _modulate_blocks(x_bcthw[:, :, part], scale_bcthw[:, :, part], shift_bcthw[:, :, part])
        for part in (slice(0, 1), slice(1, None))
    ]
    return torch.cat(parts, dim=2)


def _modulate_blocks(x_bcthw: Tensor, scale_bcthw: Tensor, shift_bcthw: Tensor) -> Tensor:
    _, _, t, h, _ = scale_bcthw.shape
    columns = x_bcthw.shape[4] // scale_bcthw.shape[4]
    blocks = rearrange(x_bcthw, "b c (t i) (h j) w -> b c t i h j w", t=t, h=h)
    scale, shift = (
        maps.repeat_interleave(columns, dim=4)[:, :, :, None, :, None] for maps in (scale_bcthw, shift_bcthw)
    )
    return torch.addcmul(shift, blocks, scale).view(x_bcthw.shape)


class ResnetBlock(nn.Module):
    """Norm, SiLU and causal convolution, twice, around a shortcut.

    `latent_channels` makes the norms functions of the latent; None leaves plain group norms.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        groups: int,
        latent_channels: int | None,
        ops: Operations,
        **place,
    ):
        super().__init__()
        self.ops = ops

        def norm(channels: int) -> nn.Module:
            if latent_channels is None:
                return ops.GroupNorm(groups, channels, eps=EPS, **place)
            return LatentNorm(channels, latent_channels, groups, ops, **place)

        self.norm1 = norm(channels_in)
        self.conv1 = CausalConv(channels_in, channels_out, ops, **place)
        self.norm2 = norm(channels_out)
        self.conv2 = CausalConv(channels_out, channels_out, ops, **place)
        self.conv_shortcut = None
        if channels_in != channels_out:
            self.conv_shortcut = ops.Conv3d(channels_in, channels_out, kernel_size=1, **place)

    def forward(self, x_bcthw: Tensor, z_bcthw: Tensor | None, cache: CausalCache) -> Tensor:
        latent = () if z_bcthw is None else (z_bcthw,)
        shortcut = (
            x_bcthw if self.conv_shortcut is None else mix_channels(self.conv_shortcut, x_bcthw, self.ops)
        )
        hidden = self.conv1(F.silu(self.norm1(x_bcthw, *latent)), cache)
        hidden = self.conv2(F.silu(self.norm2(hidden, *latent)), cache)
        return hidden + shortcut


def _per_frame(conv: nn.Module, x_bcthw: Tensor) -> Tensor:
    frames = rearrange(x_bcthw, "b c t h w -> (b t) c h w")
    return rearrange(conv(frames), "(b t) c h w -> b c t h w", b=x_bcthw.shape[0])


class Downsample(nn.Module):
    """Halve height and width and, with `fold_time`, the frames; an odd count keeps frame 0 as it is."""

    def __init__(self, channels: int, fold_time: bool, ops: Operations, **place):
        super().__init__()
        self.fold_time = fold_time
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, stride=2, **place)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        if self.fold_time:
            x_bcthw = average_pairs(x_bcthw)
        return _per_frame(self.conv, F.pad(x_bcthw, (0, 1, 0, 1)))


def average_pairs(x_bcthw: Tensor) -> Tensor:
    """The mean of every two frames; an odd count keeps frame 0 as it is."""
    lone = x_bcthw.shape[2] % 2
    pairs = x_bcthw[:, :, lone:].unflatten(2, (-1, 2)) if x_bcthw.shape[2] > 1 else None
    if pairs is None:
        return x_bcthw
    means = pairs.mean(dim=3)
    return torch.cat([x_bcthw[:, :, :1], means], dim=2) if lone else means


class Upsample(nn.Module):
    """Double height and width and, with `unfold_time`, the frames; frame 0 of an odd count stays single.

    A lone frame stays single too where a clip begins, and is doubled where one goes on (`continues`).
    """

    def __init__(self, channels: int, unfold_time: bool, ops: Operations, **place):
        super().__init__()
        self.unfold_time = unfold_time
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, padding=1, **place)

    def forward(self, x_bcthw: Tensor, continues: bool) -> Tensor:
        if self.unfold_time:
            x_bcthw = double_frames(x_bcthw, continues)
        grown = F.interpolate(x_bcthw, scale_factor=(1.0, 2.0, 2.0))
        return _per_frame(self.conv, grown)


def double_frames(x_bcthw: Tensor, continues: bool) -> Tensor:
    """Show every frame twice, except frame 0 of an odd count, unless a lone frame goes on an older clip."""
    frames = x_bcthw.shape[2]
    if frames % 2 == 0 or (frames == 1 and continues):
        return x_bcthw.repeat_interleave(2, dim=2)
    return torch.cat([x_bcthw[:, :, :1], x_bcthw[:, :, 1:].repeat_interleave(2, dim=2)], dim=2)


class Level(nn.Module):
    """Resnet blocks of one resolution; the encoder and the decoder add the change of resolution."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        num_blocks: int,
        groups: int,
        latent_channels: int | None,
        ops: Operations,
        **place,
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(width_in, width_out, groups, latent_channels, ops, **place)
            for width_in, width_out in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x_bcthw: Tensor, z_bcthw: Tensor | None, cache: CausalCache) -> Tensor:
        for block in self.resnets:
            x_bcthw = block(x_bcthw, z_bcthw, cache)
        return x_bcthw


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
        **place,
    ):
        super().__init__()
        self.conv_in = CausalConv(pixel_channels, widths[0], ops, **place)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(widths[max(i - 1, 0)], width, blocks_per_level, groups, None, ops, **place)
            if i < len(widths) - 1:
                level.downsamplers = nn.ModuleList([Downsample(width, i < folding_levels, ops, **place)])
            self.down_blocks.append(level)
        self.mid_block = Level(widths[-1], widths[-1], 2, groups, None, ops, **place)
        self.norm_out = ops.GroupNorm(groups, widths[-1], eps=EPS, **place)
        self.conv_out = CausalConv(widths[-1], 2 * latent_channels, ops, **place)

    def forward(self, x_bcfhw: Tensor, cache: CausalCache) -> Tensor:
        hidden = self.conv_in(x_bcfhw, cache)
        for level in self.down_blocks:
            hidden = level(hidden, None, cache)
            for downsample in getattr(level, "downsamplers", ()):
                hidden = downsample(hidden)
        hidden = self.mid_block(hidden, None, cache)
        return self.conv_out(F.silu(self.norm_out(hidden)), cache)


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
        **place,
    ):
        super().__init__()
        widths = list(reversed(widths))
        self.conv_in = CausalConv(latent_channels, widths[0], ops, **place)
        self.mid_block = Level(widths[0], widths[0], 2, groups, latent_channels, ops, **place)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[max(i - 1, 0)]
            level = Level(before, width, blocks_per_level + 1, groups, latent_channels, ops, **place)
            if i < len(widths) - 1:
                level.upsamplers = nn.ModuleList([Upsample(width, i < folding_levels, ops, **place)])
            self.up_blocks.append(level)
        self.norm_out = LatentNorm(widths[-1], latent_channels, groups, ops, **place)
        self.conv_out = CausalConv(widths[-1], pixel_channels, ops, **place)

    def forward(self, z_bcthw: Tensor, cache: CausalCache) -> Tensor:
        continues = cache.started
        hidden = self.mid_block(self.conv_in(z_bcthw, cache), z_bcthw, cache)
        for level in self.up_blocks:
            hidden = level(hidden, z_bcthw, cache)
            for upsample in getattr(level, "upsamplers", ()):
                hidden = upsample(hidden, continues)
        return self.conv_out(F.silu(self.norm_out(hidden, z_bcthw)), cache)
