"""Adaptive norms over a joint sequence: one tensor, text tokens first, image tokens after.

Both functions write into their first argument unless a graph is being recorded; callers use the result. With a graph they
round as the networks' own training did, bit for bit; without one a product and a sum are one operation.
"""

import torch
from torch import Tensor

from .operations import is_recorded


def modulate(y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor) -> Tensor:
    """y (1 + scale) + shift, with other rows for text than for image tokens.

    The rows hold shift, scale, … on their second axis (DiT, arXiv 2212.09748, sec. 3.2).
    """
    parts = []
    for part, rows in _streams(y_bld, text_tokens, image_bcd, text_bcd):
        shift, factor = rows[:, 0:1], 1 + rows[:, 1:2]
        if is_recorded():
            parts.append(part * factor + shift)
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
        return gate_bld * y_bld + x_bld
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
