"""How frames of the CogVideoX autoencoder are stored, counted, normalised and convolved without a gradient.

Activations are (b, c, t, h, w). Where no gradient is asked for, tensors are reused and a few frames are
worked on at a time, so that the working set is little more than one layer's input and output. The numbers
are those of the plain formulas: group statistics always cover the whole chunk.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.operations import is_recorded

# Activations that are worked on at once, in numbers: 64 Mi in bfloat16 are 128 MiB.
WORKING_NUMBERS = 2**26


def storage_order(device: torch.device) -> torch.memory_format:
    """How activations lie in memory: channels innermost on CPU, where oneDNN convolves them fastest."""
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def allocate(like_bcthw: Tensor, channels: int, frames: int) -> Tensor:
    """Room for `frames` frames of `channels` channels, as high and wide as `like_bcthw`."""
    b, _, _, h, w = like_bcthw.shape
    return torch.empty(
        (b, channels, frames, h, w),
        dtype=like_bcthw.dtype,
        device=like_bcthw.device,
        memory_format=storage_order(like_bcthw.device),
    )


def frames_at_once(x_bcthw: Tensor) -> int:
    """How many frames a layer works on at a time: at least one."""
    return max(1, WORKING_NUMBERS // max(1, x_bcthw[:, :, 0].numel()))


def collect(parts: Iterable[tuple[slice, Tensor]], num_frames: int) -> Tensor:
    """Parts of a clip, each with its place, as one tensor; a part that is the whole clip is not copied."""
    whole: Tensor | None = None
    for place, part in parts:
        if part.shape[2] == num_frames:
            whole = part
            continue  # not return: the parts' maker has work left to do after the last one
        if whole is None:
            whole = allocate(part, part.shape[1], num_frames)
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
        frame_bcthw = frame[:, :, None]
        if whole is None:
            whole = allocate(frame_bcthw, frame.shape[1], sum(copies))
        whole[:, :, place : place + n] = frame_bcthw
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
class Affine:
    """x * scale + shift, then SiLU; both maps are coarse in time and space and kept in float32 or better."""

    scale_bcthw: Tensor
    shift_bcthw: Tensor
    map_frame: Tensor | None = None  # which frame of the maps each frame of x uses; None: they have one

    def write(self, x_bcthw: Tensor, place: slice, out_bcthw: Tensor) -> None:
        """Fill `out_bcthw` from the frames of x that stand at `place` of the chunk."""
        scale, shift = self.scale_bcthw, self.shift_bcthw
        if self.map_frame is not None:
            chosen = self.map_frame[place]
            scale, shift = scale.index_select(2, chosen), shift.index_select(2, chosen)
        target = over_blocks(out_bcthw, scale)
        torch.addcmul(widen(shift), over_blocks(x_bcthw, scale), widen(scale), out=target)
        F.silu(out_bcthw, inplace=True)


@dataclass(frozen=True)
class Copy:
    """The frames as they are."""

    def write(self, x_bcthw: Tensor, place: slice, out_bcthw: Tensor) -> None:
        """Fill `out_bcthw` with x."""
        out_bcthw.copy_(x_bcthw)


def group_statistics(x_bcthw: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation (b, groups) over a group's channels and all of the chunk.

    Both are float32 or better. They are put together from those of as many frames as fit at once.
    """
    half = x_bcthw.dtype in (torch.bfloat16, torch.float16)
    parts = x_bcthw.split(frames_at_once(x_bcthw), dim=2)
    moments = [
        _moments_from_sums(part, groups) if half else _moments_from_norm(part, groups, eps) for part in parts
    ]
    mean_pbg, var_pbg = (torch.stack(values) for values in zip(*moments, strict=True))
    share_p11 = mean_pbg.new_tensor([part.shape[2] / x_bcthw.shape[2] for part in parts])[:, None, None]
    mean_bg = (share_p11 * mean_pbg).sum(dim=0)
    var_bg = (share_p11 * (var_pbg + (mean_pbg - mean_bg).square())).sum(dim=0)
    return mean_bg, torch.rsqrt(var_bg + eps)


def _moments_from_sums(x_bcthw: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Sums in float32 are far more exact than half precision numbers, and need no copy of them."""
    rows = x_bcthw.unflatten(1, (groups, -1))
    axes = (2, 3, 4, 5)
    mean = rows.mean(dim=axes, dtype=torch.float32)
    power = torch.linalg.vector_norm(rows, dim=axes, dtype=torch.float32).square() / rows[0, 0].numel()
    return mean, (power - mean.square()).clamp_min(0)


def _moments_from_norm(x_bcthw: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """The two-pass moments that the group norm kernel makes, which are fast and exact on every device."""
    b, c, t, h, w = x_bcthw.shape
    order = storage_order(x_bcthw.device)
    if x_bcthw.stride() != torch.empty(x_bcthw.shape, device="meta", memory_format=order).stride():
        # The kernel asks for plain strides, also along axes of length one.
        x_bcthw = allocate(x_bcthw, c, t).copy_(x_bcthw)
    _, mean, rstd = torch.native_group_norm(x_bcthw, None, None, b, c, t * h * w, groups, eps)
    return mean, rstd.pow(-2) - eps


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
    y_bcthw = allocate(frames_bcthw, len(taps[0]), frames_bcthw.shape[2] - 2)
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
