"""Encoder and decoder of the SVD autoencoder.

The encoder is that of Stable Diffusion (arXiv 2112.10752) and sees frames one by one; the decoder is fine-tuned
with temporal layers (Stable Video Diffusion, arXiv 2311.15127, appendix D). Parameter names are those of the
published checkpoints.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ...layers import slabs
from ...layers.attention import Attention
from ...layers.operations import Operations, is_recorded
from ...layers.temporal import conv_over_time, to_clips
from .temporal import GROUPS, activate
from .vae_layers import (
    SPATIAL_EPS,
    Downsample,
    ResnetBlock,
    SelfAttention,
    Upsample,
    VideoResnetBlock,
)
from .vae_slabs import affine_of, change_frames, compact, convolve_rows

PIXEL_CHANNELS = 3


class Middle(nn.Module):
    """The layers of the lowest resolution."""

    def __init__(
        self, block: type[ResnetBlock], channels: int, ops: Operations, attention: Attention, **factory
    ):
        super().__init__()
        self.block_1 = block(channels, channels, ops, **factory)
        self.attn_1 = SelfAttention(channels, ops, attention, **factory)
        self.block_2 = block(channels, channels, ops, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_nchw)))


class Level(nn.Module):
    """Blocks of one resolution; `downsample` or `upsample` is added where another one follows."""

    def __init__(
        self,
        block: type[ResnetBlock],
        channels_in: int,
        channels_out: int,
        num_blocks: int,
        ops: Operations,
        **factory,
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.block = nn.ModuleList(
            block(width_in, width_out, ops, **factory)
            for width_in, width_out in zip(widths, widths[1:], strict=False)
        )


class Encoder(nn.Module):
    """Pixels to the mean and log variance of their latents."""

    def __init__(
        self,
        channels: Sequence[int],
        num_res_blocks: int,
        latent_channels: int,
        ops: Operations,
        attention: Attention,
        **factory,
    ):
        super().__init__()
        self.conv_in = ops.Conv2d(PIXEL_CHANNELS, channels[0], kernel_size=3, padding=1, **factory)
        self.down = nn.ModuleList()
        for i, width in enumerate(channels):
            level = Level(ResnetBlock, channels[max(i - 1, 0)], width, num_res_blocks, ops, **factory)
            if i < len(channels) - 1:
                level.downsample = Downsample(width, ops, **factory)
            self.down.append(level)
        self.mid = Middle(ResnetBlock, channels[-1], ops, attention, **factory)
        self.norm_out = ops.GroupNorm(GROUPS, channels[-1], eps=SPATIAL_EPS, **factory)
        self.conv_out = ops.Conv2d(channels[-1], 2 * latent_channels, kernel_size=3, padding=1, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """A few frames at a time: frame by frame where they are large."""
        numbers = self.conv_in.out_channels * x_nchw.shape[2] * x_nchw.shape[3]
        return change_frames(self._encode, x_nchw, numbers)

    def _encode(self, x_nchw: Tensor) -> Tensor:
        # One variable for all layers: a call that runs a level would keep the level's input alive.
        x_nchw = self.conv_in(x_nchw)
        for level in self.down:
            for block in level.block:  # type: ignore[union-attr]
                x_nchw = block(x_nchw)
            if hasattr(level, "downsample"):
                x_nchw = level.downsample(x_nchw)  # type: ignore[operator]
        return self.conv_out(activate(self.norm_out(self.mid(x_nchw))))


class TemporalDecoder(nn.Module):
    """Latents of one clip to its pixels; every frame depends on every other."""

    def __init__(
        self,
        channels: Sequence[int],
        num_res_blocks: int,
        latent_channels: int,
        ops: Operations,
        attention: Attention,
        **factory,
    ):
        super().__init__()
        self.ops = ops
        self.conv_in = ops.Conv2d(latent_channels, channels[-1], kernel_size=3, padding=1, **factory)
        self.mid = Middle(VideoResnetBlock, channels[-1], ops, attention, **factory)
        levels = []
        for i, width in enumerate(channels):
            before = channels[min(i + 1, len(channels) - 1)]
            level = Level(VideoResnetBlock, before, width, num_res_blocks + 1, ops, **factory)
            if i > 0:
                level.upsample = Upsample(width, ops, **factory)
            levels.append(level)
        self.up = nn.ModuleList(levels)
        self.norm_out = ops.GroupNorm(GROUPS, channels[0], eps=SPATIAL_EPS, **factory)
        self.conv_out = ops.Conv2d(channels[0], PIXEL_CHANNELS, kernel_size=3, padding=1, **factory)
        self.conv_out.time_mix_conv = ops.Conv3d(
            PIXEL_CHANNELS, PIXEL_CHANNELS, kernel_size=(3, 1, 1), padding=(1, 0, 0), **factory
        )

    def forward(self, z_nchw: Tensor) -> Tensor:
        # One variable for all layers: a call that runs a level would keep the level's input alive.
        x_nchw = self.mid(self.conv_in(z_nchw))
        enlarge: Upsample | None = None
        for level in reversed(self.up):
            for block in level.block:  # type: ignore[union-attr]
                x_nchw = block.change_frames(x_nchw, enlarge)
                x_nchw = compact(x_nchw)
                x_nchw = block.mix_frames(x_nchw)
                enlarge = None
            enlarge = getattr(level, "upsample", None)
        return self._mix_frames(change_frames(self._finish, x_nchw, x_nchw[0].numel()))

    def _finish(self, x_nchw: Tensor) -> Tensor:
        if is_recorded() or slabs.IMAGE_VAE.fits(x_nchw):
            return self.conv_out(activate(self.norm_out(x_nchw)))
        y_nchw = slabs.allocate(x_nchw, 1, PIXEL_CHANNELS, *x_nchw.shape[2:])
        affine = affine_of(self.norm_out, x_nchw, self.ops)
        for rows, part in convolve_rows(self.conv_out, x_nchw, affine):
            y_nchw[:, :, rows] = part
        return y_nchw

    def _mix_frames(self, x_nchw: Tensor) -> Tensor:
        frames = len(x_nchw)
        layer = self.conv_out.time_mix_conv
        y_bcn = conv_over_time(layer, to_clips(x_nchw, frames), frames, self.ops)  # type: ignore[arg-type]
        return y_bcn.unflatten(2, (frames, *x_nchw.shape[2:]))[0].transpose(0, 1)
