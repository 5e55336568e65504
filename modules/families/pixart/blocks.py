"""The blocks of the PixArt transformer: self-attention, room for motion, cross-attention, feed-forward.

PixArt-alpha (arXiv 2310.00426, sec. 2.3): one projection of the timestep for all blocks, and a table of each block's own.
Where no graph is being recorded tokens are changed in place, a few pictures at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import slabs
from ...layers.attention import Attention, packed
from ...layers.calls import Call, calling
from ...layers.feed_forward import FeedForward, gelu_tanh
from ...layers.norms import add_gated, modulate
from ...layers.operations import Operations, is_recorded
from .config import PixArtConfig

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Layout:
    """How tokens (n, l, d) lie: n pictures, those of a clip behind each other, l = height * width."""

    frames: int  # of a clip
    height: int
    width: int


def spans(x_nld: Tensor, texts: int, wide: int) -> Iterator[slice]:
    """The pictures that are worked on at once, of one text each; all of them while a graph is recorded."""
    n, tokens = x_nld.shape[:2]
    if is_recorded():
        yield slice(0, n)
        return
    per_text = n // texts
    for first in range(0, n, per_text):
        for place in slabs.TOKENS.spans(per_text, wide * tokens, x_nld.device):
            yield slice(first + place.start, first + place.stop)


def each(x_nld: Tensor, places: list[slice], change: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """x with every part changed; in place unless a graph is being recorded, which sees one part."""
    if is_recorded():
        return change(x_nld, places[0])
    for place in places:
        change(x_nld[place], place)
    return x_nld


def norm(x_nld: Tensor) -> Tensor:
    """A layer norm without weights of its own."""
    return F.layer_norm(x_nld, x_nld.shape[-1:], eps=NORM_EPS)


class AttentionLayers(nn.Module):
    """The four projections of an attention."""

    def __init__(self, width: int, heads: int, ops: Operations, attention: Attention, **factory: Any):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.to_q = ops.Linear(width, width, **factory)
        self.to_k = ops.Linear(width, width, **factory)
        self.to_v = ops.Linear(width, width, **factory)
        self.to_out = nn.ModuleList([ops.Linear(width, width, **factory)])

    def keys(self, y_nld: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Keys and values (n, heads, l, d) of tokens."""
        keys, values = (packed(self.split(call(layer, y_nld))) for layer in (self.to_k, self.to_v))
        return keys, values

    def split(self, y_nld: Tensor) -> Tensor:
        """Tokens by heads."""
        return y_nld.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def attend(self, y_nld: Tensor, keys: tuple[Tensor, Tensor], call: Call, options: Any) -> Tensor:
        """What the tokens find at these keys."""
        y_nld = self.attention(self.split(call(self.to_q, y_nld)), *keys, transformer_options=options)
        return call(self.to_out[0], y_nld)


class Still(nn.Module):
    """Where a motion module goes: pictures have none."""

    def forward(self, x_nld: Tensor, layout: Layout, options: Any) -> Tensor:
        return x_nld


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, config: PixArtConfig, ops: Operations, attention: Attention, **factory: Any):
        super().__init__()
        self.ops, self.wide = ops, 4 * config.width
        layers = (config.width, config.num_heads, ops, attention)
        self.scale_shift_table = nn.Parameter(torch.empty(6, config.width, **factory))
        self.attn1 = AttentionLayers(*layers, **factory)
        self.attn_temporal: nn.Module = Still()
        self.attn2 = AttentionLayers(*layers, **factory)
        self.ff = FeedForward(config.width, self.wide, gelu_tanh, ops, **factory)

    def forward(
        self, x_nld: Tensor, time_n6d: Tensor, text_gld: Tensor, layout: Layout, options: Any
    ) -> Tensor:
        """Tokens of n pictures; `text_gld` is one prompt for every n / g of them."""
        first_n3d, second_n3d = (self.ops.cast(self.scale_shift_table, x_nld) + time_n6d).tensor_split(
            2, dim=1
        )
        places = list(spans(x_nld, len(text_gld), self.wide))
        with calling(self.attn1, x_nld, self.ops) as call:

            def around(part: Tensor, at: slice) -> Tensor:
                rows = first_n3d[at]
                y = modulate(norm(part), 0, rows, rows)
                y = self.attn1.attend(y, self.attn1.keys(y, call), call, options)
                return add_gated(part, y, 0, rows, rows)

            x_nld = each(x_nld, places, around)
        x_nld = self.attn_temporal(x_nld, layout, options)
        with calling(self.attn2, x_nld, self.ops) as ask, calling(self.ff, x_nld, self.ops) as call:
            keys = self.attn2.keys(text_gld, ask)

            def onward(part: Tensor, at: slice) -> Tensor:
                part, rows = self._read(part, at, keys, len(x_nld), ask, options), second_n3d[at]
                y = modulate(norm(part), 0, rows, rows)
                y = self.ff(y, call)
                return add_gated(part, y, 0, rows, rows)

            return each(x_nld, places, onward)

    def _read(
        self, part: Tensor, at: slice, keys: tuple[Tensor, Tensor], total: int, call: Call, options: Any
    ) -> Tensor:
        """Tokens of the pictures `at`, with what they find in their texts: those of one text are one row of queries."""
        per_text = total // len(keys[0])
        own = slice(at.start // per_text, -(-at.stop // per_text))
        texts = own.stop - own.start
        rows_gld = part.unflatten(0, (texts, -1)).flatten(1, 2)
        y_gld = self.attn2.attend(rows_gld, (keys[0][own], keys[1][own]), call, options)
        y_nld = y_gld.view(part.shape)
        return part + y_nld if is_recorded() else part.add_(y_nld)
