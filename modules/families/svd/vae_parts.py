"""How the SVD autoencoder works on part of its activations at a time, where no gradient is asked for.

A frame at 1024x576 with 256 channels holds 151 million numbers, and a decoder that makes copies holds eight of
them. Here a layer works on a few small frames or on a few rows of a large one, and writes its result where its
input was. The numbers are those of the plain formulas: statistics always cover whole frames or clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.norms import group_affine
from ...layers.operations import Operations
from ...layers.temporal import conv_over_time

# Activations that are worked on at once, in numbers: 16 Mi in half precision are 32 MiB.
WORKING_NUMBERS = 2**24


def allocate(like_nchw: Tensor, frames: int, channels: int, height: int, width: int) -> Tensor:
    """Room for frames, of the kind of `like_nchw`."""
    return like_nchw.new_empty((frames, channels, height, width))


def compact(x_nchw: Tensor) -> Tensor:
    """x without the rest of the memory that it lies in."""
    return x_nchw.clone() if x_nchw.untyped_storage().nbytes() > x_nchw.nbytes else x_nchw


def at_once(numbers: int) -> int:
    """How many things of so many numbers are worked on at a time: at least one."""
    return max(1, WORKING_NUMBERS // max(1, numbers))


def fits(x: Tensor) -> bool:
    """Whether x is small enough to be worked on as a whole."""
    return x.numel() <= WORKING_NUMBERS


def slices(length: int, step: int) -> Iterator[slice]:
    """0 .. length in pieces of `step`, the last one shorter."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


@dataclass(frozen=True)
class Affine:
    """x * scale + shift for every channel, then SiLU: a group norm whose statistics are known."""

    scale: Tensor  # (1, c, 1, 1) float32 or better
    shift: Tensor

    def write(self, x_nchw: Tensor, out_nchw: Tensor) -> Tensor:
        """Fill `out_nchw` from x."""
        torch.addcmul(self.shift, x_nchw, self.scale, out=out_nchw)
        return F.silu(out_nchw, inplace=True)


def affine_of(norm: Any, x_nchw: Tensor, ops: Operations) -> Affine:
    """A group norm with statistics over all of x: one frame, or a clip with its frames on any axis but 1."""
    mean_g, var_g = _moments(x_nchw, norm.num_groups)
    rstd_g = torch.rsqrt(var_g + norm.eps)
    scale_1c, shift_1c = group_affine(norm, mean_g[None], rstd_g[None], x_nchw, ops)
    return Affine(scale_1c[..., None, None], shift_1c[..., None, None])


def _moments(x_nchw: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (groups,), two passes in float32 or better that copy a few pixels at a time."""
    exact = torch.promote_types(x_nchw.dtype, torch.float32)
    mean_c = x_nchw.mean(dim=(0, 2, 3), dtype=exact)
    power_c = torch.zeros_like(mean_c)
    x_ncl = x_nchw.flatten(2)
    for pixels in slices(x_ncl.shape[2], at_once(2 * x_ncl[..., 0].numel())):  # twice: exact is wider
        away = x_ncl[..., pixels] - mean_c[:, None]
        power_c += torch.linalg.vector_norm(away, dim=(0, 2)).square()
        del away
    mean_gk, power_gk = mean_c.view(groups, -1), power_c.view(groups, -1)
    mean_g = mean_gk.mean(dim=1)
    count = x_nchw.numel() // x_nchw.shape[1]
    var_gk = power_gk / count + (mean_gk - mean_g[:, None]).square()
    return mean_g, var_gk.mean(dim=1)


def convolve_rows(conv: nn.Module, x_1chw: Tensor, affine: Affine) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a 3x3 convolution of `affine` of one frame, a few at a time, with their place.

    Rows of x at a place that was handed out are not read again.
    """
    _, channels, height, width = x_1chw.shape
    last: Tensor | None = None  # row above the next ones, already normalised
    for rows in slices(height, at_once(channels * width)):
        above, below = int(last is not None), int(rows.stop < height)
        stop = above + rows.stop - rows.start
        room = allocate(x_1chw, 1, channels, stop + below, width)
        affine.write(x_1chw[:, :, rows.start : rows.stop + below], room[:, :, above:])
        if last is not None:
            room[:, :, :1] = last
        last = room[:, :, stop - 1 : stop].clone()
        part = conv(room)[:, :, above:stop]
        del room
        yield rows, part
        del part


def mix_over_time(stack: Any, x_tchw: Tensor, share: Tensor, ops: Operations) -> Tensor:
    """The change that a TemporalResBlock makes to one clip, a few pixels at a time; x is used up."""
    x_1ctl = x_tchw.flatten(2).transpose(0, 1)[None]
    change_1ctl = torch.empty(x_1ctl.shape, dtype=x_tchw.dtype, device=x_tchw.device)
    affine = affine_of(stack.in_layers[0], x_tchw, ops)
    for pixels, part in _pixels_over_time(stack.in_layers[2], x_1ctl, affine, ops):
        change_1ctl[..., pixels] = part
        del part  # or it lives until the next one is made
    affine = affine_of(stack.out_layers[0], change_1ctl, ops)
    for pixels, part in _pixels_over_time(stack.out_layers[3], change_1ctl, affine, ops):
        x_1ctl[..., pixels].addcmul_(part, share)
        del part
    return x_tchw


def _pixels_over_time(
    conv: nn.Module, x_1ctl: Tensor, affine: Affine, ops: Operations
) -> Iterator[tuple[slice, Tensor]]:
    _, channels, frames, num_pixels = x_1ctl.shape
    for pixels in slices(num_pixels, at_once(channels * frames)):
        x_part = x_1ctl[..., pixels]
        room = torch.empty(x_part.shape, dtype=x_part.dtype, device=x_part.device)
        y_bcn = conv_over_time(conv, affine.write(x_part, room).flatten(2), frames, ops)
        del room
        yield pixels, y_bcn.unflatten(2, (frames, -1))
        del y_bcn


def upsample(conv: nn.Module, x_nchw: Tensor, ops: Operations) -> Tensor:
    """A 3x3 convolution of x with doubled pixels, without doubling them.

    Of the three pixels that a kernel covers on an axis two are the same one. Each of the four places within a
    doubled pixel therefore is a 2x2 convolution of x by sums of weights: 16 products instead of 36.
    """
    n, channels, height, width = x_nchw.shape
    with ops.weights(conv, x_nchw) as (weight, bias):
        y_nchw = allocate(x_nchw, n, len(weight), 2 * height, 2 * width)
        for row, column, kernel in _kernels_of_places(weight):
            for rows in slices(height, at_once(n * channels * width)):
                first = max(rows.start - 1, 0)
                part = F.conv2d(x_nchw[:, :, first : rows.stop + 1], kernel, bias, padding=1)
                start = rows.start - first + row
                part = part[:, :, start : start + rows.stop - rows.start, column : column + width]
                y_nchw[:, :, 2 * rows.start + row : 2 * rows.stop : 2, column::2] = part
                del part
    return y_nchw


def _kernels_of_places(weight: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(row, column, 2x2 kernel) of the four pixels that a pixel is doubled to; sums in float32 or better."""
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    for row in range(2):
        tall = _halve(exact, row, dim=2)
        for column in range(2):
            yield row, column, _halve(tall, column, dim=3).to(weight.dtype)


def _halve(weight: Tensor, place: int, dim: int) -> Tensor:
    """Three taps as two: the first place of a doubled pixel covers (before, same + same), the other the rest."""
    before, same, after = weight.unbind(dim)
    return torch.stack([before + same, after] if place else [before, same + after], dim)
