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

# Activations that are worked on at once, in numbers: 64 Mi in bfloat16 are 128 MiB.
WORKING_NUMBERS = 2**26


def storage_order(device: torch.device) -> torch.memory_format:
    """How activations lie in memory: channels innermost on CPU, where oneDNN convolves them fastest."""
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def allocate(like_bcthw: Tensor, channels: int, frames: int, grow: int = 1) -> Tensor:
    """Room for `frames` frames of `channels` channels, `grow` times as high and wide as `like_bcthw`."""
    b, _, _, h, w = like_bcthw.shape
    shape = (b, channels, frames, h * grow, w * grow)
    return torch.empty(
        shape,
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
    map_frame: list[int]  # which frame of the maps each frame of x uses

    def write(self, x_bcthw: Tensor, place: slice, out_bcthw: Tensor) -> None:
        """Fill `out_bcthw` from the frames of x that stand at `place` of the chunk."""
        chosen = self.map_frame[place]
        scale, shift = (maps[:, :, chosen] for maps in (self.scale_bcthw, self.shift_bcthw))
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

    Both are float32 or better. They are put together from those of every frame.
    """
    half = x_bcthw.dtype in (torch.bfloat16, torch.float16)
    moments = [
        _moments_from_sums(frame, groups) if half else _moments_from_norm(frame, groups, eps)
        for frame in x_bcthw.unbind(dim=2)
    ]
    mean_tbg, var_tbg = (torch.stack(parts) for parts in zip(*moments, strict=True))
    mean_bg = mean_tbg.mean(dim=0)
    var_bg = (var_tbg + (mean_tbg - mean_bg).square()).mean(dim=0)
    return mean_bg, torch.rsqrt(var_bg + eps)


def _moments_from_sums(frame_bchw: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Sums in float32 are far more exact than half precision numbers, and need no copy of them."""
    rows = frame_bchw.unflatten(1, (groups, -1))
    axes = (2, 3, 4)
    mean = rows.mean(dim=axes, dtype=torch.float32)
    power = torch.linalg.vector_norm(rows, dim=axes, dtype=torch.float32).square() / rows[0, 0].numel()
    return mean, (power - mean.square()).clamp_min(0)


def _moments_from_norm(frame_bchw: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """The two-pass moments that the group norm kernel makes, which are fast and exact on every device."""
    b, c, h, w = frame_bchw.shape
    order = torch.channels_last if frame_bchw.stride(1) == 1 else torch.contiguous_format
    frame_bchw = frame_bchw.contiguous(memory_format=order)
    _, mean, rstd = torch.native_group_norm(frame_bchw, None, None, b, c, h * w, groups, eps)
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
    clips = [
        _convolve_clip(frames_bcthw[i].transpose(0, 1), taps, bias, begins) for i in range(len(frames_bcthw))
    ]
    return (clips[0][None] if len(clips) == 1 else torch.stack(clips)).transpose(1, 2)


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
