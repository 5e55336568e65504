"""Building blocks of the SVD autoencoder: per-frame ResBlocks, their temporal half, attention, resizing.

Stable Video Diffusion (arXiv 2311.15127), appendix D; latent diffusion (arXiv 2112.10752) for the image part.
Parameter names are those of the published checkpoints. Frames of one clip lie on the batch axis. Without a
gradient the inputs of blocks are used up, and what is independent per frame runs a few frames at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import slabs
from ...layers.attention import Attention
from ...layers.operations import Operations, is_recorded, is_taken_over
from .temporal import EPS as TEMPORAL_EPS
from .temporal import GROUPS, TemporalResBlock, activate
from .vae_slabs import affine_of, change_frames, convolve_rows, mix_over_time, upsample

SPATIAL_EPS = 1e-6


class Downsample(nn.Module):
    """Half the height and width; one row and column of zeros are added at the end."""

    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, stride=2, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return self.conv(F.pad(x_nchw, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width: every pixel doubled, then a convolution."""

    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, padding=1, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        if is_recorded() or is_taken_over(self.conv):
            return self.conv(F.interpolate(x_nchw, scale_factor=2.0))
        return upsample(self.conv, x_nchw, self.ops)


class ResnetBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around a shortcut; every frame by itself.

    Without a gradient the input is used up: its memory may hold the output.
    """

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.norm1 = ops.GroupNorm(GROUPS, channels_in, eps=SPATIAL_EPS, **factory)
        self.conv1 = ops.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, **factory)
        self.norm2 = ops.GroupNorm(GROUPS, channels_out, eps=SPATIAL_EPS, **factory)
        self.conv2 = ops.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, **factory)
        self.channels = channels_in, channels_out
        self.nin_shortcut = None
        if channels_in != channels_out:
            self.nin_shortcut = ops.Conv2d(channels_in, channels_out, kernel_size=1, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return self.mix_frames(self.change_frames(x_nchw))

    def mix_frames(self, x_nchw: Tensor) -> Tensor:
        """What frames learn from each other: nothing in an image model."""
        return x_nchw

    def change_frames(self, x_nchw: Tensor, enlarge: Upsample | None = None) -> Tensor:
        """The frames one by one; `enlarge` first, a few at a time, so that they never exist as a whole."""
        numbers = max(self.channels) * x_nchw.shape[2] * x_nchw.shape[3]
        if enlarge is None:
            return change_frames(self._change, x_nchw, numbers)
        return change_frames(lambda frames: self._change(enlarge(frames)), x_nchw, 4 * numbers)

    def _change(self, x_nchw: Tensor) -> Tensor:
        if not is_recorded() and len(x_nchw) == 1 and not slabs.IMAGE_VAE.fits(x_nchw):
            return self._change_rows(x_nchw)
        y_nchw = self.conv1(activate(self.norm1(x_nchw)))
        y_nchw = self.conv2(activate(self.norm2(y_nchw)))
        if is_recorded():
            return y_nchw + self._shortcut(x_nchw)
        return x_nchw.add_(y_nchw) if self.nin_shortcut is None else y_nchw.add_(self._shortcut(x_nchw))

    def _shortcut(self, x_nchw: Tensor) -> Tensor:
        return x_nchw if self.nin_shortcut is None else self.nin_shortcut(x_nchw)

    def _change_rows(self, x_1chw: Tensor) -> Tensor:
        hidden, base = self._places(x_1chw)
        affine = affine_of(self.norm1, x_1chw, self.ops)
        for rows, part in convolve_rows(self.conv1, x_1chw, affine):
            if self.nin_shortcut is not None:
                base[:, :, rows] = self.nin_shortcut(x_1chw[:, :, rows])
            hidden[:, :, rows] = part
            del part  # or it lives until the next one is made
        affine = affine_of(self.norm2, hidden, self.ops)
        for rows, part in convolve_rows(self.conv2, hidden, affine):
            base[:, :, rows] += part
            del part
        return base

    def _places(self, x_1chw: Tensor) -> tuple[Tensor, Tensor]:
        """Where the hidden numbers and the result may lie: over x, as far as it is wide enough."""
        width_in, width = self.channels
        if width_in >= 2 * width:
            return x_1chw[:, width : 2 * width], x_1chw[:, :width]
        hidden = slabs.allocate(x_1chw, 1, width, *x_1chw.shape[2:])
        return hidden, x_1chw if self.nin_shortcut is None else torch.empty_like(hidden)


class VideoResnetBlock(ResnetBlock):
    """A ResnetBlock whose frames then exchange, at every pixel, what lies before and after in time."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **factory):
        super().__init__(channels_in, channels_out, ops, **factory)
        self.time_stack = TemporalResBlock(channels_out, None, TEMPORAL_EPS, ops, **factory)
        self.mix_factor = nn.Parameter(torch.zeros(1, dtype=factory["dtype"], device=factory["device"]))

    def mix_frames(self, x_nchw: Tensor) -> Tensor:
        """All frames are one clip. The mix factor says the share of what they learn."""
        share = torch.sigmoid(self.ops.cast(self.mix_factor, x_nchw))
        if is_recorded() or slabs.IMAGE_VAE.fits(x_nchw):
            return self.time_stack(x_nchw, len(x_nchw), share)
        return mix_over_time(self.time_stack, x_nchw, share, self.ops)


class SelfAttention(nn.Module):
    """Attention of all pixels of a frame to each other, with one head."""

    def __init__(self, channels: int, ops: Operations, attention: Attention, **factory):
        super().__init__()
        self.attention = attention
        self.norm = ops.GroupNorm(GROUPS, channels, eps=SPATIAL_EPS, **factory)
        self.q, self.k, self.v, self.proj_out = (
            ops.Conv2d(channels, channels, kernel_size=1, **factory) for _ in range(4)
        )

    def forward(self, x_nchw: Tensor) -> Tensor:
        tokens = x_nchw.shape[2] * x_nchw.shape[3]
        return change_frames(self._change, x_nchw, tokens * max(tokens, x_nchw.shape[1]))

    def _change(self, x_nchw: Tensor) -> Tensor:
        y_nchw = self.norm(x_nchw)
        q, k, v = (layer(y_nchw).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        y_ndl = self._attend(q, k, v).transpose(1, 2)
        y_nchw = self.proj_out(y_ndl.unflatten(2, x_nchw.shape[2:]))
        return x_nchw + y_nchw if is_recorded() else x_nchw.add_(y_nchw)

    def _attend(self, q_n1ld: Tensor, k_n1ld: Tensor, v_n1ld: Tensor) -> Tensor:
        """Some queries at a time where every pair would be many: an attention may hold them all."""
        n, _, tokens, _ = q_n1ld.shape
        parts = q_n1ld.split(slabs.IMAGE_VAE.at_once(n * tokens, q_n1ld.device), dim=2)
        return torch.cat([self.attention(part, k_n1ld, v_n1ld) for part in parts], dim=1)
