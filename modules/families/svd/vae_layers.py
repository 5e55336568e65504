"""Building blocks of the SVD autoencoder: per-frame ResBlocks, their temporal half, attention, resizing.

Stable Video Diffusion (arXiv 2311.15127), appendix D; latent diffusion (arXiv 2112.10752) for the image part.
Parameter names are those of the published checkpoints. Frames of one clip lie on the batch axis. Without a
gradient the inputs of blocks are used up, and what is independent per frame runs a few frames at a time.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention
from ...layers.operations import Operations
from .temporal import EPS as TEMPORAL_EPS
from .temporal import GROUPS, TemporalResBlock, activate

SPATIAL_EPS = 1e-6
# Activations that are worked on at once, in numbers: 64 Mi in half precision are 128 MiB.
WORKING_NUMBERS = 2**26

Change = Callable[[Tensor], Tensor]  # of some frames: another resolution or number of channels


def storage_order(device: torch.device) -> torch.memory_format:
    """How frames lie in memory: channels innermost on CPU, where few channels convolve faster so."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def frames_at_once(numbers_per_frame: int) -> int:
    """How many frames a layer works on at a time: at least one."""
    return max(1, WORKING_NUMBERS // max(1, numbers_per_frame))


def change_frames(change: Change, x_nchw: Tensor) -> Tensor:
    """`change` applied to a few frames at a time, which must be independent of each other."""
    if torch.is_grad_enabled():
        return change(x_nchw)
    whole: Tensor | None = None
    step = frames_at_once(x_nchw[0].numel())
    for start in range(0, len(x_nchw), step):
        part = change(x_nchw[start : start + step])
        if len(part) == len(x_nchw):
            return part
        if whole is None:
            size = (len(x_nchw), *part.shape[1:])
            order = storage_order(part.device)
            whole = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=order)
        whole[start : start + step] = part
        del part
    if whole is None:
        raise ValueError("A clip needs at least one frame.")
    return whole


class ResnetBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around a shortcut; every frame by itself."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **place):
        super().__init__()
        self.norm1 = ops.GroupNorm(GROUPS, channels_in, eps=SPATIAL_EPS, **place)
        self.conv1 = ops.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, **place)
        self.norm2 = ops.GroupNorm(GROUPS, channels_out, eps=SPATIAL_EPS, **place)
        self.conv2 = ops.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, **place)
        self.nin_shortcut = None
        if channels_in != channels_out:
            self.nin_shortcut = ops.Conv2d(channels_in, channels_out, kernel_size=1, **place)

    def forward(self, x_nchw: Tensor, before: Change | None = None) -> Tensor:
        """`before` is done to a few frames of x at a time, so that its result never exists as a whole."""
        if before is None:
            return change_frames(self._change, x_nchw)
        return change_frames(lambda part: self._change(before(part)), x_nchw)

    def _change(self, x_nchw: Tensor) -> Tensor:
        y_nchw = self.conv1(activate(self.norm1(x_nchw)))
        if self.nin_shortcut is not None:
            x_nchw = self.nin_shortcut(x_nchw)
        y_nchw = self.conv2(activate(self.norm2(y_nchw)))
        return x_nchw + y_nchw if torch.is_grad_enabled() else y_nchw.add_(x_nchw)


class VideoResnetBlock(ResnetBlock):
    """A ResnetBlock whose frames then exchange, at every pixel, what lies before and after in time."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **place):
        super().__init__(channels_in, channels_out, ops, **place)
        self.ops = ops
        self.time_stack = TemporalResBlock(channels_out, None, TEMPORAL_EPS, ops, **place)
        self.mix_factor = nn.Parameter(torch.zeros(1, dtype=place["dtype"], device=place["device"]))

    def forward(self, x_nchw: Tensor, before: Change | None = None) -> Tensor:
        x_nchw = super().forward(x_nchw, before)
        share = torch.sigmoid(self.ops.cast(self.mix_factor, x_nchw))  # of the temporal half
        return self.time_stack(x_nchw, len(x_nchw), share)


class SelfAttention(nn.Module):
    """Attention of all pixels of a frame to each other, with one head."""

    def __init__(self, channels: int, ops: Operations, attention: Attention, **place):
        super().__init__()
        self.attention = attention
        self.norm = ops.GroupNorm(GROUPS, channels, eps=SPATIAL_EPS, **place)
        self.q, self.k, self.v, self.proj_out = (
            ops.Conv2d(channels, channels, kernel_size=1, **place) for _ in range(4)
        )

    def forward(self, x_nchw: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x_nchw + self._attend(x_nchw)
        tokens = x_nchw.shape[2] * x_nchw.shape[3]
        for part in x_nchw.split(frames_at_once(tokens * tokens)):  # an attention may hold every pair
            part += self._attend(part)
        return x_nchw

    def _attend(self, x_nchw: Tensor) -> Tensor:
        y_nchw = self.norm(x_nchw)
        q, k, v = (layer(y_nchw).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        y_nld = self.attention(q, k, v)
        return self.proj_out(y_nld.transpose(1, 2).unflatten(2, x_nchw.shape[2:]))


class Downsample(nn.Module):
    """Half the height and width; one row and column of zeros are added at the end."""

    def __init__(self, channels: int, ops: Operations, **place):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, stride=2, **place)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return change_frames(lambda part: self.conv(F.pad(part, (0, 1, 0, 1))), x_nchw)


class Upsample(nn.Module):
    """Twice the height and width, nearest pixels then a convolution."""

    def __init__(self, channels: int, ops: Operations, **place):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, padding=1, **place)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_nchw, scale_factor=2.0))
