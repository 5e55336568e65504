"""How frames of the CogVideoX autoencoder are counted, joined, normed and convolved without a gradient.

Activations are (b, c, t, h, w). Where no gradient is asked for, tensors are reused and a few frames are
worked on at a time, so that the working set is little more than one layer's input and output. The numbers
are those of the plain formulas: group statistics always cover the whole chunk.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.operations import is_recorded
from ...layers.slabs import Affine, allocate

# What a convolution reads: frames of its input, their place in the chunk, and where the result goes.
Prepare = Callable[[Tensor, slice, Tensor], object]


def copy(x_bcthw: Tensor, place: slice, out_bcthw: Tensor) -> None:
    """The frames as they are."""
    out_bcthw.copy_(x_bcthw)


def collect(parts: Iterable[tuple[slice, Tensor]], num_frames: int) -> Tensor:
    """Parts of a clip, each with its place, as one tensor; a part that is the whole clip is not copied."""
    whole: Tensor | None = None
    for place, part in parts:
        if part.shape[2] == num_frames:
            whole = part
            continue  # not return: the parts' maker has work left to do after the last one
        if whole is None:
            whole = allocate(part, *part.shape[:2], num_frames, *part.shape[3:])
        whole[:, :, place] = part
    if whole is None:
        raise ValueError("A clip needs at least one frame.")
    return whole


def join_frames(frames_bchw: Iterable[Tensor], copies: list[int]) -> Tensor:
    """Frames one after another, each shown as often as `copies` says."""
    if is_recorded():
        shown = [frame for frame, n in zip(frames_bchw, copies, strict=True) for _ in range(n)]
        return torch.stack(shown, dim=2)
    whole: Tensor | None = None
    place = 0
    for frame, n in zip(frames_bchw, copies, strict=True):
        if whole is None:
            whole = allocate(frame, *frame.shape[:2], sum(copies), *frame.shape[2:])
        whole[:, :, place : place + n] = frame[:, :, None]
        place += n
    if whole is None:
        raise ValueError("A clip needs at least one frame.")
    return whole


def latent_frame_of(num_frames: int, num_latents: int) -> list[int]:
    """Which latent frame each frame belongs to.

    An odd number of frames above one starts with a frame that has a latent frame of its own.
    """
    lone = int(num_frames > 1 and num_frames % 2 == 1)
    frames, latents = num_frames - lone, num_latents - lone
    return [0] * lone + [lone + i * latents // frames for i in range(frames)]


def over_blocks(x_bcthw: Tensor, cells_bcthw: Tensor) -> Tensor:
    """View of x whose height and width are split by the cells of a coarser map: (b, c, t, h, i, w, j)."""
    h, w = cells_bcthw.shape[3:]
    return x_bcthw.unflatten(4, (w, -1)).unflatten(3, (h, -1))


def widen(cells_bcthw: Tensor) -> Tensor:
    """A coarse map with the axes that let it broadcast over `over_blocks`."""
    return cells_bcthw[:, :, :, :, None, :, None]


@dataclass(frozen=True)
class LatentAffine:
    """An Affine whose maps are as coarse as the latent, in time and space."""

    maps: Affine
    latent_frame: Tensor  # the frame of the maps that each frame of x takes

    def write(self, x_bcthw: Tensor, place: slice, out_bcthw: Tensor) -> None:
        """Fill `out_bcthw` from the frames of x that stand at `place` of the chunk."""
        chosen = self.latent_frame[place]
        scale, shift = (cells.index_select(2, chosen) for cells in (self.maps.scale, self.maps.shift))
        blocks = over_blocks(x_bcthw, scale), over_blocks(out_bcthw, scale)
        Affine(widen(scale), widen(shift)).write(*blocks)


def mix_channels(x_bcthw: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1x1 convolution as one matrix product: pointwise conv3d is slow on CPU."""
    matrix = weight.flatten(1)
    if x_bcthw.is_contiguous(memory_format=torch.channels_last_3d):
        return F.linear(x_bcthw.permute(0, 2, 3, 4, 1), matrix, bias).permute(0, 4, 1, 2, 3)
    y_bcn = torch.matmul(matrix, x_bcthw.flatten(2))
    if bias is not None:
        y_bcn = y_bcn + bias[:, None]
    return y_bcn.unflatten(2, x_bcthw.shape[2:])


def time_taps(weight: Tensor) -> list[Tensor]:
    """The three frames of a 3x3x3 kernel as 3x3 kernels, the latest last."""
    return [tap.contiguous(memory_format=torch.channels_last) for tap in weight.unbind(dim=2)]


def convolve_by_taps(frames_bcthw: Tensor, taps: list[Tensor], bias: Tensor | None, begins: bool) -> Tensor:
    """3x3x3 convolution as three 3x3 ones: faster on CPU than conv3d, which falls back to slow code there.

    The first two frames are the past. Where the clip `begins` they repeat frame 0, whose products are
    computed once.
    """
    if len(frames_bcthw) == 1:
        return _convolve_clip(frames_bcthw[0].transpose(0, 1), taps, bias, begins).transpose(0, 1)[None]
    b, _, t, h, w = frames_bcthw.shape
    y_bcthw = allocate(frames_bcthw, b, len(taps[0]), t - 2, h, w)
    for clip_cthw, y_cthw in zip(frames_bcthw, y_bcthw, strict=True):
        y_cthw.copy_(_convolve_clip(clip_cthw.transpose(0, 1), taps, bias, begins).transpose(0, 1))
    return y_bcthw


def _convolve_clip(frames_tchw: Tensor, taps: list[Tensor], bias: Tensor | None, begins: bool) -> Tensor:
    num_frames = len(frames_tchw) - 2
    y_tchw = F.conv2d(frames_tchw[2:], taps[2], bias, padding=1)
    for past in (1, 2):
        first = 2 if begins else 2 - past
        earlier = F.conv2d(
            frames_tchw[first : max(2 + num_frames - past, first + 1)], taps[2 - past], padding=1
        )
        if begins:
            y_tchw[:past] += earlier[:1]
            y_tchw[past:] += earlier[: num_frames - past]
        else:
            y_tchw += earlier
    return y_tchw
