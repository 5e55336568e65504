"""The blocks of the CogVideoX transformer: text and image tokens in one tensor, text first.

CogVideoX (arXiv 2408.06072, sec. 2.2). Tensors are changed in place wherever no graph is being recorded.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...layers import positions, slabs
from ...layers.attention import Attention, packed
from ...layers.feed_forward import FeedForward, gelu_tanh
from ...layers.norms import add_gated, modulate
from ...layers.operations import Operations, is_recorded
from .config import CogVideoXConfig

NORM_EPS = 1e-5
QK_NORM_EPS = 1e-6


class ExpertNorm(nn.Module):
    """Layer norm shared by both streams, and the projection that gives each its own modulation."""

    def __init__(self, width: int, time_dim: int, num_rows: int, ops: Operations, **factory):
        super().__init__()
        self.num_rows = num_rows
        self.linear = ops.Linear(time_dim, num_rows * width, **factory)
        self.norm = ops.LayerNorm(width, eps=NORM_EPS, **factory)

    def rows(self, condition_bd: Tensor) -> Tensor:
        """Shift, scale, gate of the image, then of the text: (b, num_rows, d)."""
        return self.linear(condition_bd).unflatten(1, (self.num_rows, -1))

    def forward(self, x_bld: Tensor, text_tokens: int, image_bcd: Tensor, text_bcd: Tensor) -> Tensor:
        """Normed tokens, the image's and the text's modulated by their own rows."""
        return modulate(self.norm(x_bld), text_tokens, image_bcd, text_bcd)


class JointAttention(nn.Module):
    """Self-attention over text and image tokens; rotary positions on the image tokens only."""

    def __init__(self, width: int, head_dim: int, ops: Operations, attention: Attention, **factory):
        super().__init__()
        self.head_dim = head_dim
        self.attention = attention
        self.to_q = ops.Linear(width, width, **factory)
        self.to_k = ops.Linear(width, width, **factory)
        self.to_v = ops.Linear(width, width, **factory)
        self.to_out = nn.ModuleList([ops.Linear(width, width, **factory)])
        self.norm_q = ops.LayerNorm(head_dim, eps=QK_NORM_EPS, **factory)
        self.norm_k = ops.LayerNorm(head_dim, eps=QK_NORM_EPS, **factory)

    def forward(
        self, normed: Callable[[], Tensor], text_tokens: int, table: Tensor | None, transformer_options: Any
    ) -> Tensor:
        """`normed` makes the tokens here, so that they are freed before attention, at the peak of memory."""
        y_bld = normed()
        q_bhld = self._turned(self.norm_q(self._split(self.to_q(y_bld))), table, text_tokens)
        k_bhld = packed(self._turned(self.norm_k(self._split(self.to_k(y_bld))), table, text_tokens))
        y_bld = self.to_v(y_bld)
        v_bhld = packed(self._split(y_bld).transpose(1, 2))
        del y_bld
        y_bld = self.attention(q_bhld, k_bhld, v_bhld, transformer_options=transformer_options)
        del q_bhld, k_bhld, v_bhld
        return self.to_out[0](y_bld)

    def _split(self, x_bld: Tensor) -> Tensor:
        return x_bld.unflatten(2, (-1, self.head_dim))

    def _turned(self, x_blhd: Tensor, table: Tensor | None, start: int) -> Tensor:
        x_bhld = x_blhd.transpose(1, 2)
        return x_bhld if table is None else positions.rotate(x_bhld, table, start)


def feed_tokens(normed: Callable[[], Tensor], feed_forward: FeedForward) -> Tensor:
    """The feed-forward of normed tokens, some at a time where there are many.

    It asks for them itself: in training they are let go once they are wide.
    """
    if is_recorded():
        return feed_forward.narrow(feed_forward.widen(normed()))
    y_bld = normed()
    for rows_nd, run in feed_forward.in_rows(y_bld, slabs.TOKENS):
        rows_nd.copy_(run(rows_nd))
    return y_bld


class Block(nn.Module):
    """One transformer block ("expert adaLN"): joint attention, then a joint feed-forward."""

    def __init__(self, config: CogVideoXConfig, ops: Operations, attention: Attention, **factory):
        super().__init__()
        width, time_dim = config.width, config.time_embed_dim
        self.norm1 = ExpertNorm(width, time_dim, 6, ops, **factory)
        self.attn1 = JointAttention(width, config.head_dim, ops, attention, **factory)
        self.norm2 = ExpertNorm(width, time_dim, 6, ops, **factory)
        self.ff = FeedForward(width, 4 * width, gelu_tanh, ops, **factory)

    def rows(self, condition_bd: Tensor) -> tuple[Tensor, Tensor]:
        """What both norms take from the timestep, each (b, 6, d)."""
        return self.norm1.rows(condition_bd), self.norm2.rows(condition_bd)

    def forward(
        self,
        x_bld: Tensor,
        text_tokens: int,
        rows: tuple[Tensor, Tensor],
        table: Tensor | None,
        transformer_options: Any = None,
    ) -> Tensor:
        first, second = (rows_bcd.tensor_split(2, dim=1) for rows_bcd in rows)
        normed = partial(self.norm1, x_bld, text_tokens, *first)
        y_bld = self.attn1(normed, text_tokens, table, transformer_options)
        x_bld = add_gated(x_bld, y_bld, text_tokens, *first)
        del y_bld
        y_bld = feed_tokens(partial(self.norm2, x_bld, text_tokens, *second), self.ff)
        return add_gated(x_bld, y_bld, text_tokens, *second)
