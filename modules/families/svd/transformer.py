"""The attention blocks of the SVD UNet: over the pixels of a frame, then over the frames of a pixel.

Stable Video Diffusion (arXiv 2311.15127), appendix D; parameter names of Stability-AI/generative-models.
Without a graph both run slab by slab in place: a few frames, then all frames of a few pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ...layers import positions, slabs
from ...layers.attention import MOST_SEQUENCES, Attention
from ...layers.feed_forward import FeedForward, geglu
from ...layers.hooks import Hooks
from ...layers.operations import Operations, is_recorded, is_taken_over
from .blocks import Clips, TimeMixer
from .temporal import GROUPS

NORM_EPS = 1e-5
GROUP_NORM_EPS = 1e-6


class CrossAttention(nn.Module):
    """Attention of tokens to themselves or to a context."""

    def __init__(
        self, width: int, context_dim: int, head_dim: int, ops: Operations, attention: Attention, **factory
    ):
        super().__init__()
        self.head_dim, self.attention = head_dim, attention
        self.to_q = ops.Linear(width, width, bias=False, **factory)
        self.to_k = ops.Linear(context_dim, width, bias=False, **factory)
        self.to_v = ops.Linear(context_dim, width, bias=False, **factory)
        self.to_out = nn.ModuleList([ops.Linear(width, width, **factory)])

    def forward(self, y_bld: Tensor, context_bld: Tensor, transformer_options: Any) -> Tensor:
        """Tokens (b, l, d) and a context of as many rows."""
        q_bhld, k_bhld, v_bhld = (
            layer(rows).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for layer, rows in ((self.to_q, y_bld), (self.to_k, context_bld), (self.to_v, context_bld))
        )
        del y_bld, context_bld
        step = MOST_SEQUENCES // q_bhld.shape[1]
        parts = zip(*(rows.split(step) for rows in (q_bhld, k_bhld, v_bhld)), strict=True)
        out = [self.attention(*part, transformer_options=transformer_options) for part in parts]
        return self.to_out[0](out[0] if len(out) == 1 else torch.cat(out))

    def single(self, context_bld: Tensor) -> Tensor:
        """What a context of one token gives whatever asks: softmax over one key is one; (b, 1, d)."""
        return self.to_out[0](self.to_v(context_bld))


class TokenBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each on normed tokens and added to them."""

    def __init__(
        self, width: int, context_dim: int, head_dim: int, ops: Operations, attention: Attention, **factory
    ):
        super().__init__()
        self.norm1 = ops.LayerNorm(width, eps=NORM_EPS, **factory)
        self.attn1 = CrossAttention(width, width, head_dim, ops, attention, **factory)
        self.norm2 = ops.LayerNorm(width, eps=NORM_EPS, **factory)
        self.attn2 = CrossAttention(width, context_dim, head_dim, ops, attention, **factory)
        self.norm3 = ops.LayerNorm(width, eps=NORM_EPS, **factory)
        self.ff = FeedForward(width, 8 * width, geglu, ops, **factory)

    def forward(self, x_bld: Tensor, context_bld: Tensor, transformer_options: Any) -> Tensor:
        """`context_bld`, of one row or as many as the tokens, is what `effect` makes of a context."""
        y_bld = self.norm1(x_bld)
        x_bld = add(x_bld, self.attn1(y_bld, y_bld, transformer_options))
        del y_bld
        if context_bld.shape[1] == 1:
            x_bld = add(x_bld, context_bld)
        else:
            context_bld = context_bld.expand(len(x_bld), -1, -1)
            x_bld = add(x_bld, self.attn2(self.norm2(x_bld), context_bld, transformer_options))
        return add_feed_forward(x_bld, self.norm3, self.ff)

    def watched(self, x_bld: Tensor, context_bld: Tensor, hooks: Hooks) -> Tensor:
        """The same under the eyes of others: what they see is whole and changed by nobody later."""
        hooks.enter_tokens(x_bld.shape[2] // self.attn1.head_dim, self.attn1.head_dim)
        x_bld = hooks.between(x_bld + hooks.attend("attn1", self.attn1, self.norm1(x_bld), None))
        x_bld = x_bld + hooks.attend("attn2", self.attn2, self.norm2(x_bld), context_bld)
        return add_feed_forward(x_bld.contiguous(), self.norm3, self.ff)

    def effect(self, context_bld: Tensor) -> Tensor:
        """The context as `forward` takes it: with one token, what attention to it adds to every token."""
        return self.attn2.single(context_bld) if context_bld.shape[1] == 1 else context_bld


class TimeBlock(TokenBlock):
    """The block over time begins with one feed-forward more."""

    def __init__(
        self, width: int, context_dim: int, head_dim: int, ops: Operations, attention: Attention, **factory
    ):
        super().__init__(width, context_dim, head_dim, ops, attention, **factory)
        self.norm_in = ops.LayerNorm(width, eps=NORM_EPS, **factory)
        self.ff_in = FeedForward(width, 8 * width, geglu, ops, **factory)

    def forward(self, x_bld: Tensor, context_bld: Tensor, transformer_options: Any) -> Tensor:
        x_bld = add_feed_forward(x_bld, self.norm_in, self.ff_in)
        return super().forward(x_bld, context_bld, transformer_options)

    def watched(self, x_bld: Tensor, context_bld: Tensor, hooks: Hooks) -> Tensor:
        x_bld = add_feed_forward(x_bld.contiguous(), self.norm_in, self.ff_in)
        return super().watched(x_bld, context_bld, hooks)


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y; in place unless a graph is being recorded."""
    return x + y if is_recorded() else x.add_(y)


def add_feed_forward(x_bld: Tensor, norm: nn.Module, feed_forward: FeedForward) -> Tensor:
    """x + feed_forward(norm(x)); some tokens at a time without a graph, for it is eight times as wide inside."""
    if is_recorded():
        return x_bld + feed_forward(norm(x_bld))
    for rows_nd, run in feed_forward.in_rows(x_bld, slabs.UNET):
        rows_nd.add_(run(norm(rows_nd)))
    return x_bld


def new_time_stack(
    width: int, context_dim: int, head_dim: int, ops: Operations, attention: Attention, **factory
) -> nn.ModuleList:
    """The one block over time of a transformer."""
    return nn.ModuleList([TimeBlock(width, context_dim, head_dim, ops, attention, **factory)])


def new_time_embedding(width: int, ops: Operations, **factory) -> nn.Sequential:
    """From the sinusoid of a frame's index to what is added to its tokens."""
    return nn.Sequential(
        ops.Linear(width, 4 * width, **factory), nn.SiLU(), ops.Linear(4 * width, width, **factory)
    )


class VideoTransformer(nn.Module):
    """A token block over each frame, mixed with one over time, around a shortcut.

    `positional` is None; ExVideo has a module there (see `long_positions.py`).
    """

    positional: Any

    def __init__(
        self, channels: int, context_dim: int, head_dim: int, ops: Operations, attention: Attention, **factory
    ):
        super().__init__()
        self.ops = ops
        sizes = (channels, context_dim, head_dim, ops, attention)
        self.norm = ops.GroupNorm(GROUPS, channels, eps=GROUP_NORM_EPS, **factory)
        self.proj_in = ops.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList([TokenBlock(*sizes, **factory)])
        self.time_stack = new_time_stack(*sizes, **factory)
        self.time_pos_embed = new_time_embedding(channels, ops, **factory)
        self.time_mixer = TimeMixer(ops, **factory)
        self.proj_out = ops.Linear(channels, channels, **factory)
        self.register_module("positional", None)

    def forward(self, x_nchw: Tensor, clips: Clips) -> Tensor:
        """Frames to frames of the same shape; in place without a graph and without hooks."""
        block: Any = self.transformer_blocks[0]
        time_block: Any = self.time_stack[0]
        rows_btld = clips.context_btld
        share_b1t1 = self.time_mixer.temporal_share(clips, x_nchw)
        if clips.hooks.into_transformers:
            contexts = clips.per_frame(rows_btld), rows_btld[:, 0]
            runs = (partial(each.watched, hooks=clips.hooks) for each in (block, time_block))
            return self._whole(x_nchw, clips.frames, contexts, share_b1t1, *runs)
        effect_btld = block.effect(rows_btld.flatten(0, 1)).unflatten(0, rows_btld.shape[:2])
        effects = clips.per_frame(effect_btld), time_block.effect(rows_btld[:, 0])
        if not is_recorded():
            return self._in_slabs(x_nchw, clips, effects, share_b1t1)
        options = clips.transformer_options
        runs = (partial(each, transformer_options=options) for each in (block, time_block))
        return self._whole(x_nchw, clips.frames, effects, share_b1t1, *runs)

    def _whole(
        self,
        x_nchw: Tensor,
        frames: int,
        contexts: tuple[Tensor, Tensor],
        share_b1t1: Tensor,
        over_space: Callable[[Tensor, Tensor], Tensor],
        over_time: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        h, w = x_nchw.shape[2:]
        tokens_nld = self.proj_in(rearrange(self.norm(x_nchw), "n c h w -> n (h w) c"))
        tokens_btld = over_space(tokens_nld, contexts[0]).unflatten(0, (-1, frames))
        start_btld = self._placed_in_time(tokens_btld, (h, w))
        moved_btd = rearrange(start_btld, "b t l d -> (b l) t d")
        moved_btd = over_time(moved_btd, contexts[1].repeat_interleave(h * w, dim=0))
        moved_bltd = moved_btd.unflatten(0, (-1, h * w))
        tokens_bltd = torch.lerp(tokens_btld.transpose(1, 2), moved_bltd, share_b1t1)
        tokens_nld = rearrange(tokens_bltd, "b l t d -> (b t) l d")
        return x_nchw + rearrange(self.proj_out(tokens_nld), "n (h w) c -> n c h w", h=h)

    def _placed_in_time(self, tokens_btld: Tensor, size_hw: tuple[int, int]) -> Tensor:
        rows_td = self._time_rows(tokens_btld)
        if self.positional is None:
            return tokens_btld + rows_td[:, None]
        return self.positional(tokens_btld, rows_td, size_hw)

    def _time_rows(self, tokens_btld: Tensor) -> Tensor:
        """What the index of a frame adds to its tokens, (t, d)."""
        t, width = tokens_btld.shape[1], tokens_btld.shape[3]
        if self.positional is None:
            places_t = torch.arange(t, device=tokens_btld.device)
            rows_td = positions.sinusoid(places_t, width).to(tokens_btld.dtype)
        else:
            rows_td = self.positional.rows(t, tokens_btld)
        return self.time_pos_embed(rows_td)

    def _in_slabs(
        self, x_nchw: Tensor, clips: Clips, effects: tuple[Tensor, Tensor], share_b1t1: Tensor
    ) -> Tensor:
        n, c, h, w = x_nchw.shape
        tokens_nld = x_nchw.new_empty(n, h * w, c)
        for place in slabs.UNET.spans(n, c * h * w, x_nchw.device):
            self._tokens(x_nchw[place], tokens_nld[place])
            self.transformer_blocks[0](tokens_nld[place], effects[0][place], clips.transformer_options)
        tokens_btld = tokens_nld.unflatten(0, (-1, clips.frames))
        self._over_time(tokens_btld, (h, w), clips.transformer_options, effects[1], share_b1t1)
        self._add_frames(x_nchw, tokens_nld)
        return x_nchw

    def _tokens(self, x_nchw: Tensor, out_nld: Tensor) -> None:
        """Norm and proj_in, written where the tokens go; the layout changes inside the matrix product."""
        y_nlc = self.norm(x_nchw).flatten(2).transpose(1, 2)
        if is_taken_over(self.proj_in):
            out_nld.copy_(self.proj_in(y_nlc))
            return
        with self.ops.weights(self.proj_in, y_nlc) as (weight, bias):
            torch.baddbmm(cast(Tensor, bias), y_nlc, weight.t().expand(len(y_nlc), -1, -1), out=out_nld)

    def _over_time(
        self,
        tokens_btld: Tensor,
        size_hw: tuple[int, int],
        transformer_options: Any,
        effect_bld: Tensor,
        share_b1t1: Tensor,
    ) -> None:
        """Mix the block over time into the tokens, all frames of a few pixels at a time."""
        b, t, num_pixels, width = tokens_btld.shape
        rows_td = self._time_rows(tokens_btld)
        for clip in range(b):
            start_btld = None
            if self.positional is not None:
                start_btld = self.positional(tokens_btld[clip : clip + 1], rows_td, size_hw)
            for place in slabs.UNET.spans(num_pixels, t * width, tokens_btld.device):
                tokens_ltd = tokens_btld[clip, :, place].transpose(0, 1)
                if start_btld is None:
                    slab_ltd = torch.add(tokens_ltd, rows_td, out=tokens_ltd.new_empty(tokens_ltd.shape))
                else:
                    slab_ltd = start_btld[0, :, place].transpose(0, 1).contiguous()
                slab_ltd = self.time_stack[0](slab_ltd, effect_bld[clip : clip + 1], transformer_options)
                tokens_ltd.lerp_(slab_ltd, share_b1t1[clip if len(share_b1t1) > 1 else 0])

    def _add_frames(self, x_nchw: Tensor, tokens_nld: Tensor) -> None:
        """x += proj_out(tokens); the layout changes back inside the matrix product."""
        x_ncl = x_nchw.flatten(2)
        if is_taken_over(self.proj_out):
            x_ncl += self.proj_out(tokens_nld).transpose(1, 2)
            return
        with self.ops.weights(self.proj_out, tokens_nld) as (weight, bias):
            for place in slabs.UNET.spans(len(x_ncl), x_ncl[0].numel(), x_nchw.device):
                part_nlc = tokens_nld[place]
                weights = weight.expand(len(part_nlc), -1, -1)
                x_ncl[place].baddbmm_(weights, part_nlc.transpose(1, 2)).add_(cast(Tensor, bias)[:, None])
