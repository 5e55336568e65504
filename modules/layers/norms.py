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
    if not parts:
        return y_bld
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def add_gated(x_bld: Tensor, y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor) -> Tensor:
    """x + gate * y, with other rows for text than for image tokens; the gate is the third row."""
    places = _streams(x_bld, text_tokens, image_bcd, text_bcd)
    changes = _streams(y_bld, text_tokens, image_bcd, text_bcd)
    pairs = [(place, part, rows[:, 2:3]) for (place, rows), (part, _) in zip(places, changes, strict=True)]
    if is_recorded():
        # the gates stay rows: as many as tokens they would be kept for the backward pass
        parts = [gate * part + place for place, part, gate in pairs]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
    for place, part, gate in pairs:
        place.addcmul_(part, gate)
    return x_bld


def _streams(
    y_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor
) -> list[tuple[Tensor, Tensor]]:
    if not text_tokens:
        return [(y_bld, image_bcd)]
    # one split has one gradient; each of two slices has one as large as the whole, of zeros but for the slice
    text, image = y_bld.split((text_tokens, y_bld.shape[1] - text_tokens), dim=1)
    return [(text, text_bcd), (image, image_bcd)]
