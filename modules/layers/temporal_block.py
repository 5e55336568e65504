"""A block over time as AnimateDiff has it, for every motion module: attentions to other frames, then a feed-forward.

AnimateDiff (arXiv 2307.04725), sec. 4.2; parameter names of guoyww/AnimateDiff. EasyAnimate v1 took the block over.
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from . import positions, slabs
from .attention import Attention
from .calls import Call
from .feed_forward import FeedForward, geglu
from .operations import Operations, is_recorded

HEADS = 8
LAYER_NORM_EPS = 1e-5
# Numbers inside the feed-forward of the pixels that are worked on at once.
AT_ONCE = slabs.Budget(cpu=2**21, accelerator=2**26)


@dataclass(frozen=True)
class BlockSizes:
    """What a block over time is told of a motion module."""

    # frames that it has positions for
    rows: int
    # position tables in the file: one for each attention, one for both, or none, where sinusoids are made
    tables: int = 0
    attentions: int = 2


class Positions(nn.Module):
    """The position table of an attention, `pe` (1, rows, c), where the file holds one."""

    def __init__(self, rows: int, channels: int, **factory: Any):
        super().__init__()
        self.register_buffer("pe", torch.empty(1, rows, channels, **factory))


class TemporalAttention(nn.Module):
    """Attention of the frames of each pixel to one another."""

    def __init__(self, channels: int, rows: int, ops: Operations, attention: Attention, **factory: Any):
        super().__init__()
        self.attention = attention
        self.to_q = ops.Linear(channels, channels, bias=False, **factory)
        self.to_k = ops.Linear(channels, channels, bias=False, **factory)
        self.to_v = ops.Linear(channels, channels, bias=False, **factory)
        self.to_out = nn.ModuleList([ops.Linear(channels, channels, **factory)])
        self.pos_encoder = Positions(rows, channels, **factory) if rows else None

    def forward(self, y_ptc: Tensor, call: Call, options: Any) -> Tensor:
        """What the frames (p, t, c) of p pixels get; their positions are in y."""
        q_phtd, k_phtd, v_phtd = (
            call(layer, y_ptc).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        return call(self.to_out[0], self.attention(q_phtd, k_phtd, v_phtd, transformer_options=options))


class TemporalBlock(nn.Module):
    """Two attentions over time, or one, and a feed-forward, each on normed tokens and added to them."""

    def __init__(
        self, channels: int, sizes: BlockSizes, ops: Operations, attention: Attention, **factory: Any
    ):
        super().__init__()
        self.rows = sizes.rows
        # positions of a block that holds none: every step asks for the same
        self._made = positions.TableCache()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, sizes.rows * (number < sizes.tables), ops, attention, **factory)
            for number in range(sizes.attentions)
        )
        self.norms = nn.ModuleList(
            ops.LayerNorm(channels, eps=LAYER_NORM_EPS, **factory) for _ in self.attention_blocks
        )
        self.ff = FeedForward(channels, 8 * channels, geglu, ops, **factory)
        self.ff_norm = ops.LayerNorm(channels, eps=LAYER_NORM_EPS, **factory)

    def forward(self, x_ptc: Tensor, tables: list[Tensor], call: Call, options: Any) -> Tensor:
        """Tokens (p, t, c) of p pixels; `tables` are the positions (t, c) of each attention."""
        for attention, norm, table in zip(self.attention_blocks, self.norms, tables, strict=True):
            y_ptc = attention(add(call(norm, x_ptc), table), call, options)
            x_ptc = add(x_ptc, y_ptc)
            del y_ptc
        return add(x_ptc, self.ff(call(self.ff_norm, x_ptc), call))

    def tables(self, frames: int, like: Tensor, ops: Operations) -> list[Tensor]:
        """The positions of `frames` frames, (t, c), for each attention; ValueError beyond the table."""
        if frames > self.rows:
            raise ValueError(f"This motion module has positions for {self.rows} frames: got {frames}.")
        own = [attention.pos_encoder for attention in self.attention_blocks]
        held = [ops.cast(encoder.pe, like)[0, :frames] for encoder in own if encoder is not None]  # type: ignore[union-attr]
        held = held or self._made.get(
            (frames, like.device, like.dtype), lambda: (sinusoid_table(frames, like.shape[-1]).to(like),)
        )
        return [held[0], held[-1]][: len(self.attention_blocks)]


def sinusoid_table(rows: int, channels: int) -> Tensor:
    """sin and cos of p * 10000^(-2i / c) by turns, float32 (rows, c): "Attention is all you need", sec. 3.5."""
    table = torch.from_numpy(positions.sincos_axis(range(rows), channels)).float()
    return rearrange(table, "p (two i) -> p (i two)", two=2)


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y; in place unless a graph is being recorded."""
    return x + y if is_recorded() else x.add_(y)
