"""Norms taken apart: adaptive ones over a joint sequence, group norms whose statistics came from elsewhere.

`modulate` and `add_gated` work on one tensor, text tokens first, image tokens after. They write into their
first argument unless a graph is being recorded; callers use the result.
"""

import torch
from torch import Tensor, nn

from .operations import Operations, is_recorded


def group_affine(
    norm: nn.Module, mean_bg: Tensor, rstd_bg: Tensor, like: Tensor, ops: Operations
) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel, (b, c) each, that a group norm with these statistics applies to `like`.

    `mean_bg` and `rstd_bg`, the reciprocal deviation, are per group and at least float32; so is the result.
    ValueError for a norm without bias.
    """
    per_group = like.shape[1] // mean_bg.shape[1]
    mean_bc, rstd_bc = (moment.repeat_interleave(per_group, dim=1) for moment in (mean_bg, rstd_bg))
    with ops.weights(norm, like) as (weight, bias):
        if bias is None:
            raise ValueError("A group norm of an autoencoder has a weight and a bias: the bias is missing.")
        scale_bc = rstd_bc * weight.to(rstd_bc.dtype)
        return scale_bc, bias.to(rstd_bc.dtype) - mean_bc * scale_bc


def modulate(y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor) -> Tensor:
    """y (1 + scale) + shift, with other rows for text than for image tokens.

    The rows hold shift, scale, … on their second axis (DiT, arXiv 2212.09748, sec. 3.2).
    """
    parts = []
    for part, rows in _streams(y_bld, text_tokens, image_bcd, text_bcd):
        shift, factor = rows[:, 0:1], 1 + rows[:, 1:2]
        if is_recorded():
            parts.append(torch.addcmul(shift, part, factor))
        else:
            torch.addcmul(shift, part, factor, out=part)
    return torch.cat(parts, dim=1) if parts else y_bld


def add_gated(x_bld: Tensor, y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor) -> Tensor:
    """x + gate * y, with other rows for text than for image tokens; the gate is the third row."""
    if is_recorded():
        gate_bld = torch.cat(
            [
                text_bcd[:, 2:3].expand(-1, text_tokens, -1),
                image_bcd[:, 2:3].expand(-1, y_bld.shape[1] - text_tokens, -1),
            ],
            dim=1,
        )
        return torch.addcmul(x_bld, y_bld, gate_bld)
    places = _streams(x_bld, text_tokens, image_bcd, text_bcd)
    for (place, rows), (part, _) in zip(
        places, _streams(y_bld, text_tokens, image_bcd, text_bcd), strict=True
    ):
        place.addcmul_(part, rows[:, 2:3])
    return x_bld


def _streams(
    y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor
) -> list[tuple[Tensor, Tensor]]:
    streams = [(y_bld[:, :text_tokens], text_bcd), (y_bld[:, text_tokens:], image_bcd)]
    return [(part, rows) for part, rows in streams if part.shape[1]]
