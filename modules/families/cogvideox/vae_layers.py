"""Building blocks of the CogVideoX video autoencoder: causal convolutions and what stands between them.

CogVideoX (arXiv 2408.06072, sec. 2.1). A clip passes in chunks of frames; every causal convolution keeps
the last two frames it saw, so that the next chunk continues where this one ended. Parameter names are those
of the published checkpoints.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import slabs
from ...layers.operations import Operations, is_recorded
from ...layers.slabs import Affine
from .vae_slabs import (
    LatentAffine,
    Prepare,
    collect,
    convolve_by_taps,
    latent_frame_of,
    mix_channels,
    over_blocks,
    time_taps,
    widen,
)

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

    def restore(self, layer: nn.Module, into_bcthw: Tensor) -> bool:
        """Write the last frames that `layer` saw and forget them; False in the first chunk."""
        frames = self._frames.pop(layer, None)
        if frames is not None:
            into_bcthw.copy_(frames)
        return frames is not None

    def put(self, layer: nn.Module, frames_bcthw: Tensor) -> None:
        """Remember copies of the last frames that `layer` saw."""
        self._frames[layer] = frames_bcthw.to(self.device or frames_bcthw.device, copy=True)


class CausalConv(nn.Module):
    """A 3x3x3 convolution that sees the past only: before frame 0 stands frame 0, twice."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.conv = ops.Conv3d(channels_in, channels_out, kernel_size=3, padding=(0, 1, 1), **factory)

    def forward(self, x_bcthw: Tensor, cache: CausalCache) -> Tensor:
        """The whole chunk at once, differentiable."""
        past = cache.take(self, x_bcthw)
        if past is None:
            past = x_bcthw[:, :, :1].expand(-1, -1, KEPT_FRAMES, -1, -1)
        x_bcthw = torch.cat([past, x_bcthw], dim=2)
        cache.put(self, x_bcthw[:, :, -KEPT_FRAMES:])
        return self.conv(x_bcthw)

    def sweep(self, x_bcthw: Tensor, prepare: Prepare, cache: CausalCache) -> Iterator[tuple[slice, Tensor]]:
        """A few output frames at a time, with their place, of `prepare` applied to x; no gradient.

        Frames of x before the end of a place that was handed out are not read again.
        """
        b, c, num_frames, h, w = x_bcthw.shape
        places = list(slabs.VIDEO_VAE.spans(num_frames, b * c * h * w, x_bcthw.device))
        step = places[0].stop
        room = slabs.allocate(x_bcthw, b, c, KEPT_FRAMES + step, h, w)
        convolve = self._convolution(x_bcthw)
        begins = not cache.restore(self, room[:, :, :KEPT_FRAMES])
        for place in places:
            frames = room[:, :, : KEPT_FRAMES + place.stop - place.start]
            prepare(x_bcthw[:, :, place], place, frames[:, :, KEPT_FRAMES:])
            first = begins and place.start == 0
            if first:
                frames[:, :, :KEPT_FRAMES] = frames[:, :, KEPT_FRAMES : KEPT_FRAMES + 1]
            yield place, convolve(frames, first)
            if place.stop < num_frames:
                for i in range(KEPT_FRAMES):
                    room[:, :, i] = room[:, :, i + step]
        cache.put(self, frames[:, :, -KEPT_FRAMES:])

    def _convolution(self, like: Tensor) -> Callable[[Tensor, bool], Tensor]:
        # Sums of taps in half precision would lose digits.
        if like.device.type != "cpu" or like.dtype != torch.float32:
            return lambda frames, begins: self.conv(frames)
        with self.ops.weights(self.conv, like) as (weight, bias):
            taps = time_taps(weight)  # on a CPU they stay where they are
        return lambda frames, begins: convolve_by_taps(frames, taps, bias, begins)


class PointConv(nn.Module):
    """A 1x1x1 convolution under the name that the checkpoints give it."""

    def __init__(self, channels_in: int, channels_out: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.conv = ops.Conv3d(channels_in, channels_out, kernel_size=1, **factory)

    def forward(self, x_bcthw: Tensor) -> Tensor:
        with self.ops.weights(self.conv, x_bcthw) as (weight, bias):
            return mix_channels(x_bcthw, weight, bias)


class LatentNorm(nn.Module):
    """Group norm whose scale and shift are pointwise functions of the latent (decoder only).

    A pointwise convolution commutes with nearest resizing, so both maps are made at the latent's size and
    broadcast over the block of pixels and frames that a latent cell stands for.
    """

    def __init__(self, channels: int, latent_channels: int, groups: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.norm_layer = ops.GroupNorm(groups, channels, eps=EPS, **factory)
        self.conv_y = PointConv(latent_channels, channels, ops, **factory)
        self.conv_b = PointConv(latent_channels, channels, ops, **factory)

    def forward(self, x_bcthw: Tensor, z_bcthw: Tensor) -> Tensor:
        """Differentiable, without the SiLU that follows."""
        columns = x_bcthw.shape[4] // z_bcthw.shape[4]
        chosen = latent_frame_of(x_bcthw.shape[2], z_bcthw.shape[2])
        # The width is repeated, not broadcast: short innermost axes are slow on CPU.
        scale, shift = (
            conv(z_bcthw)[:, :, chosen].repeat_interleave(columns, dim=4)
            for conv in (self.conv_y, self.conv_b)
        )
        blocks = over_blocks(self.norm_layer(x_bcthw), scale)
        return torch.addcmul(widen(shift), blocks, widen(scale)).flatten(5).flatten(3, 4)

    def affine(self, x_bcthw: Tensor, z_bcthw: Tensor) -> LatentAffine:
        """The same norm of x, and the SiLU, as one scale and one shift."""
        norm = _group_affine(self.norm_layer, x_bcthw, self.ops)
        y_bcthw, b_bcthw = (conv(z_bcthw).to(norm.scale.dtype) for conv in (self.conv_y, self.conv_b))
        maps = Affine(y_bcthw * norm.scale, torch.addcmul(b_bcthw, y_bcthw, norm.shift))
        chosen = latent_frame_of(x_bcthw.shape[2], z_bcthw.shape[2])
        return LatentAffine(maps, torch.tensor(chosen, device=x_bcthw.device))


def _group_affine(norm: Any, x_bcthw: Tensor, ops: Operations) -> Affine:
    """A group norm over a chunk, from a few frames at a time."""
    step = slabs.VIDEO_VAE.at_once(x_bcthw[:, :, 0].numel(), x_bcthw.device)
    return slabs.affine_of(norm, x_bcthw.split(step, dim=2), ops)


def normalised(norm: Any, x_bcthw: Tensor, z_bcthw: Tensor | None) -> Tensor:
    """Norm and SiLU, differentiable."""
    return F.silu(norm(x_bcthw) if z_bcthw is None else norm(x_bcthw, z_bcthw))


def prepare_norm(norm: Any, x_bcthw: Tensor, z_bcthw: Tensor | None, ops: Operations) -> Prepare:
    """Norm and SiLU of x, to be applied a few frames at a time."""
    if z_bcthw is not None:
        return norm.affine(x_bcthw, z_bcthw).write
    affine = _group_affine(norm, x_bcthw, ops)
    return lambda x_bcthw, place, out_bcthw: affine.write(x_bcthw, out_bcthw)


class ResnetBlock(nn.Module):
    """Norm, SiLU and causal convolution, twice, around a shortcut.

    `latent_channels` makes the norms functions of the latent; None leaves plain group norms. Without a
    gradient the input is used up: its memory may hold the output.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        groups: int,
        latent_channels: int | None,
        ops: Operations,
        **factory,
    ):
        super().__init__()
        self.ops = ops

        def norm(channels: int) -> nn.Module:
            if latent_channels is None:
                return ops.GroupNorm(groups, channels, eps=EPS, **factory)
            return LatentNorm(channels, latent_channels, groups, ops, **factory)

        self.norm1 = norm(channels_in)
        self.conv1 = CausalConv(channels_in, channels_out, ops, **factory)
        self.norm2 = norm(channels_out)
        self.conv2 = CausalConv(channels_out, channels_out, ops, **factory)
        self.conv_shortcut = None
        if channels_in != channels_out:
            self.conv_shortcut = ops.Conv3d(channels_in, channels_out, kernel_size=1, **factory)

    def forward(self, x_bcthw: Tensor, z_bcthw: Tensor | None, cache: CausalCache) -> Tensor:
        if not is_recorded():
            return self._reuse_memory(x_bcthw, z_bcthw, cache)
        hidden = self.conv1(normalised(self.norm1, x_bcthw, z_bcthw), cache)
        hidden = self.conv2(normalised(self.norm2, hidden, z_bcthw), cache)
        return hidden + self._shortcut(x_bcthw)

    def _shortcut(self, x_bcthw: Tensor) -> Tensor:
        if self.conv_shortcut is None:
            return x_bcthw
        with self.ops.weights(self.conv_shortcut, x_bcthw) as (weight, bias):
            return mix_channels(x_bcthw, weight, bias)

    def _reuse_memory(self, x_bcthw: Tensor, z_bcthw: Tensor | None, cache: CausalCache) -> Tensor:
        norm = prepare_norm(self.norm1, x_bcthw, z_bcthw, self.ops)
        hidden = collect(self.conv1.sweep(x_bcthw, norm, cache), x_bcthw.shape[2])
        norm = prepare_norm(self.norm2, hidden, z_bcthw, self.ops)
        for place, part in self.conv2.sweep(hidden, norm, cache):
            if self.conv_shortcut is None:
                x_bcthw[:, :, place] += part
            else:
                hidden[:, :, place] = part.add_(self._shortcut(x_bcthw[:, :, place]))
        return x_bcthw if self.conv_shortcut is None else hidden
