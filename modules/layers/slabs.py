"""Layers run on part of a tensor at a time, so that little memory does, where no graph is being recorded.

How much at once is one table, `UNET` to `VIDEO_VAE`. The results are those of the plain formulas: what is cut
is independent or, as the statistics of a norm, put together from its pieces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .operations import Operations


@dataclass(frozen=True)
class Budget:
    """How many numbers of an activation are worked on at once, by device."""

    cpu: int
    accelerator: int

    def at_once(self, numbers: int, device: torch.device) -> int:
        """How many things of so many numbers each are worked on at once: one at least."""
        budget = self.cpu if device.type == "cpu" else self.accelerator
        return max(1, budget // max(1, numbers))

    def fits(self, x: Tensor) -> bool:
        """Whether x is worked on as a whole."""
        return x.numel() <= self.at_once(1, x.device)

    def spans(self, count: int, numbers: int, device: torch.device) -> Iterator[slice]:
        """0 to count in steps of as many things as are worked on at once, the last one shorter."""
        step = self.at_once(numbers, device)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))


# A CPU is fastest with what its caches hold; an accelerator needs enough to keep its kernels busy, and no more
# than memory can spare. Accelerators are not measured yet (benchmarks/gpu/slabs.py does).
UNET = Budget(cpu=2**20, accelerator=2**25)
# Tokens through layers in which they are wider. On a CPU every slab reads the weights again, so slabs are larger
# than the caches; 30 * 2^20 are a multiple of 512 tokens in every published network.
TOKENS = Budget(cpu=2**24, accelerator=30 * 2**20)
# Tokens in training, between the halves of a feed-forward: slabs as large as keep products fast, for each is computed
# by kernels of its own and nothing is fetched anew.
TRAINING = Budget(cpu=2**21, accelerator=2**25)
# A convolution over time and space: each slab computes the frames beside it once more, so slabs are large everywhere.
LONG_CLIP = Budget(cpu=2**25, accelerator=2**25)
IMAGE_VAE = Budget(cpu=2**24, accelerator=2**24)
VIDEO_VAE = Budget(cpu=2**26, accelerator=2**26)


def storage_order(device: torch.device, axes: int) -> torch.memory_format:
    """How activations lie in memory: clips channels innermost on a CPU, where oneDNN convolves them fastest."""
    return torch.channels_last_3d if axes == 5 and device.type == "cpu" else torch.contiguous_format


def allocate(like: Tensor, *shape: int) -> Tensor:
    """Room for frames (n, c, h, w) or clips (b, c, t, h, w) of the kind of `like`."""
    order = storage_order(like.device, len(shape))
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)


@dataclass(frozen=True)
class Affine:
    """x * scale + shift, then SiLU: a group norm whose statistics are known. Both maps broadcast to x."""

    scale: Tensor  # float32 or better
    shift: Tensor

    def write(self, x: Tensor, out: Tensor) -> Tensor:
        """Fill `out` from x."""
        torch.addcmul(self.shift, x, self.scale, out=out)
        return F.silu(out, inplace=True)


def affine_of(norm: Any, pieces: Sequence[Tensor], ops: Operations) -> Affine:
    """A group norm over all `pieces`, (b, c, ...) each, as maps (b, c, 1, ...); ValueError without a bias."""
    mean_bg, rstd_bg = group_statistics(pieces, norm.num_groups, norm.eps)
    per_group = pieces[0].shape[1] // norm.num_groups
    mean_bc, rstd_bc = (moment.repeat_interleave(per_group, dim=1) for moment in (mean_bg, rstd_bg))
    with ops.weights(norm, pieces[0]) as (weight, bias):
        if bias is None:
            raise ValueError("A group norm of an autoencoder has a weight and a bias: the bias is missing.")
        scale_bc = rstd_bc * weight.to(rstd_bc.dtype)
        shift_bc = bias.to(rstd_bc.dtype) - mean_bc * scale_bc
    axes = [1] * (pieces[0].ndim - 2)
    return Affine(scale_bc.view(*scale_bc.shape, *axes), shift_bc.view(*shift_bc.shape, *axes))


def group_statistics(pieces: Sequence[Tensor], groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation (b, groups) of all pieces together, in float32 or better.

    In half precision the moments of a piece come from sums in float32, which are far more exact than its numbers
    and need no copy of them; else from the group norm kernel, which takes two passes.
    """
    counts = [piece[0].numel() // groups for piece in pieces]
    half = pieces[0].dtype in (torch.bfloat16, torch.float16)
    read = _sums if half else _norms
    mean_pbg, other_pbg = map(torch.stack, zip(*(read(piece, groups, eps) for piece in pieces), strict=True))
    if half:
        power_pbg = other_pbg.square() / mean_pbg.new_tensor(counts)[:, None, None]
        var_pbg = (power_pbg - mean_pbg.square()).clamp_min(0)
    else:
        var_pbg = other_pbg.pow(-2) - eps
    share_p11 = mean_pbg.new_tensor([count / sum(counts) for count in counts])[:, None, None]
    mean_bg, var_bg = _merge(mean_pbg, var_pbg, share_p11)
    return mean_bg, torch.rsqrt(var_bg + eps)


def _sums(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and the root of the sum of squares (b, groups) of half precision numbers."""
    rows = x.unflatten(1, (groups, -1))
    axes = tuple(range(2, rows.ndim))
    length = torch.linalg.vector_norm(rows, dim=axes, dtype=torch.float32)
    return rows.mean(dim=axes, dtype=torch.float32), length


def _norms(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation (b, groups)."""
    order = storage_order(x.device, x.ndim)
    if x.stride() != torch.empty(x.shape, device="meta", memory_format=order).stride():
        # The kernel asks for plain strides, also along axes of length one.
        x = allocate(x, *x.shape).copy_(x)
    if order is torch.contiguous_format:
        return _kernel(x, groups, eps)
    # Channels last, the kernel of a CPU adds number to number: over a flat picture that loses digits, over a row not.
    rows = x.movedim(1, -1).flatten(0, -3).movedim(-1, 1)[:, :, None]
    mean_nbg, rstd_nbg = (
        moment.unflatten(0, (len(x), -1)).movedim(1, 0) for moment in _kernel(rows, groups, eps)
    )
    mean_bg, var_bg = _merge(mean_nbg, rstd_nbg.pow(-2) - eps, 1 / len(mean_nbg))
    return mean_bg, torch.rsqrt(var_bg + eps)


def _kernel(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    b, c = x.shape[:2]
    return torch.native_group_norm(x, None, None, b, c, x[0, 0].numel(), groups, eps)[1:]  # type: ignore[return-value]


def _merge(mean_pbg: Tensor, var_pbg: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor]:
    """Mean and variance (b, groups) of pieces that make up such shares of all numbers."""
    # about one of them: of a flat clip the mean is far above the deviation
    mean_bg = mean_pbg[0] + (share * (mean_pbg - mean_pbg[0])).sum(dim=0)
    return mean_bg, (share * (var_pbg + (mean_pbg - mean_bg).square())).sum(dim=0)
