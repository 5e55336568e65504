"""How the SVD autoencoder works on part of its activations at a time, where no gradient is asked for.

A frame at 1024x576 with 256 channels holds 151 million numbers, and a decoder that makes copies holds eight of
them. Here a layer works on a few small frames or on a few rows of a large one, and writes its result where its
input was. The numbers are those of the plain formulas: statistics always cover whole frames or clips.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import slabs
from ...layers.operations import Operations, is_recorded
from ...layers.slabs import Affine, allocate
from ...layers.temporal import conv_over_time

Change = Callable[[Tensor], Tensor]


def compact(x_nchw: Tensor) -> Tensor:
    """x without the rest of the memory that it lies in."""
    return x_nchw.clone() if x_nchw.untyped_storage().nbytes() > x_nchw.nbytes else x_nchw


def change_frames(change: Change, x_nchw: Tensor, numbers: int) -> Tensor:
    """`change` of a few frames at a time, which must be independent; one frame takes `numbers`.

    Where `change` works in place and returns its argument, so does this.
    """
    places = list(slabs.IMAGE_VAE.spans(len(x_nchw), numbers, x_nchw.device))
    if is_recorded() or len(places) < 2:
        return change(x_nchw)
    whole: Tensor | None = None
    for place in places:
        frames = x_nchw[place]
        part = change(frames)
        if whole is None:
            whole = x_nchw if part is frames else allocate(part, len(x_nchw), *part.shape[1:])
        if whole is not x_nchw:
            whole[place] = part
        del part  # or it lives until the next one is made
    return whole  # type: ignore[return-value]


def affine_of(norm: Any, x_nchw: Tensor, ops: Operations) -> Affine:
    """A group norm over one clip, or over one frame, from a few pixels of all frames at a time."""
    x_1ctl = x_nchw.flatten(2).transpose(0, 1)[None]
    step = slabs.IMAGE_VAE.at_once(x_1ctl[..., 0].nbytes, x_nchw.device)  # bytes: copies of a piece count too
    return slabs.affine_of(norm, x_1ctl.split(step, dim=3), ops)


def convolve_rows(conv: nn.Module, x_1chw: Tensor, affine: Affine) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a 3x3 convolution of `affine` of one frame, a few at a time, with their place.

    Rows of x at a place that was handed out are not read again.
    """
    _, channels, height, width = x_1chw.shape
    last: Tensor | None = None  # row above the next ones, already normalised
    for rows in slabs.IMAGE_VAE.spans(height, channels * width, x_1chw.device):
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
    change_1ctl = allocate(x_tchw, *x_1ctl.shape)
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
    for pixels in slabs.IMAGE_VAE.spans(num_pixels, channels * frames, x_1ctl.device):
        x_part = x_1ctl[..., pixels]
        room = allocate(x_part, *x_part.shape)
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
            for rows in slabs.IMAGE_VAE.spans(height, n * channels * width, x_nchw.device):
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
