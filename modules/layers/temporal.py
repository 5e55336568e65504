"""Frames on the batch axis or on an axis of their own: views, copies and convolutions over time.

Shapes: (n, c, h, w) frames of all clips, n = b * t, clip after clip; (b, c, t * h * w) clips.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations, is_recorded, is_taken_over


def to_clips(x_nchw: Tensor, frames: int) -> Tensor:
    """Frames of `frames` per clip as clips, (b, c, t * h * w), a copy unless a clip has one frame."""
    return clip_view(x_nchw, frames).flatten(2)


def clip_view(x_nchw: Tensor, frames: int) -> Tensor:
    """The same memory as (b, c, t, h * w)."""
    return x_nchw.flatten(2).unflatten(0, (-1, frames)).transpose(1, 2)


def add_change(x_nchw: Tensor, change_bcn: Tensor, frames: int, share: Tensor) -> Tensor:
    """x + share * change; in place unless a graph is being recorded.

    A temporal branch that starts from x ends at x + change, so mixing it into x with a share of its own
    is (1 - share) x + share (x + change). `share` broadcasts to (b, c, t, h * w).
    """
    change_bctl = change_bcn.unflatten(2, (frames, -1))
    if is_recorded():
        mixed_bctl = torch.addcmul(clip_view(x_nchw, frames), change_bctl, share)
        return mixed_bctl.transpose(1, 2).reshape(x_nchw.shape)
    clip_view(x_nchw, frames).addcmul_(change_bctl, share)
    return x_nchw


def conv_over_time(layer: nn.Module, x_bcn: Tensor, frames: int, ops: Operations) -> Tensor:
    """A (3, 1, 1) convolution of clips, (b, c, t * h * w), padded with one zero frame at either end.

    Run as a (3, 1) convolution of the free view (b, c, t, h * w). On a CPU (AVX-512, one thread, float32) that
    took 0.47 to 0.89 of conv3d's time; three accumulating matrix products took 0.53 to 0.96:

        channels, cells, frames   conv3d   conv2d   products   (milliseconds)
        320, 32x32, 14 / 25       175/242   82/147    91/166
        640, 16x16, 14 / 25        96/192   78/143    86/158
        1280, 8x8, 14 / 25         89/159   79/141    85/152

    A lone frame meets only the middle third of the weights: the rest would multiply zeros.
    """
    x_bctl = x_bcn.unflatten(2, (frames, -1))
    if is_taken_over(layer):
        return layer(x_bctl[..., None]).flatten(2)
    with ops.weights(layer, x_bcn) as (weight, bias):
        taps, padding = (weight[:, :, 1:2], 0) if frames == 1 else (weight, 1)
        return F.conv2d(x_bctl, taps[..., 0], bias, padding=(padding, 0)).flatten(2)
