"""EasyAnimate v1's 3-D model out of diffusers' parts: its PixArt on frames as pictures, a motion module in each block.

The motion module is aigc-apps/EasyAnimate's "VanillaGrid" (tag v1): diffusers' transformer block on the tokens of a cell
in all frames, between linear layers, behind a group norm of every frame.
"""

from types import MethodType

import torch
from einops import rearrange
from torch import nn

from kinetograph.benchmarks import peers

HEADS, GROUPS = 8, 32
# ours to diffusers'
RENAMES = (
    ("attention_blocks.0.", "attn1."),
    ("attention_blocks.1.", "attn2."),
    ("norms.0", "norm1"),
    ("norms.1", "norm2"),
    ("ff_norm", "norm3"),
)


class GridReference(nn.Module):
    """One motion module, with the weights of one of ours."""

    def __init__(self, ours, frames, cell=2, joint_norm=False):
        super().__init__()
        peers.load_diffusers()
        from diffusers.models.attention import BasicTransformerBlock

        width = ours.proj_in.weight.shape[0]
        self.frames, self.cell, self.joint_norm = frames, cell, joint_norm
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.block = BasicTransformerBlock(
            width,
            HEADS,
            width // HEADS,
            activation_fn="geglu",
            double_self_attention=True,
            positional_embeddings="sinusoidal",
            num_positional_embeddings=frames,
        )
        # a row is of a frame, whatever token of the cell
        self.block.pos_embed.pe = self.block.pos_embed.pe.repeat_interleave(cell**2, dim=1)
        weights = {**self.state_dict(), **dict(self._renamed(ours.state_dict()))}
        self.load_state_dict(weights, strict=True)
        self.eval().requires_grad_(False)

    @staticmethod
    def _renamed(weights):
        for key, value in weights.items():
            key = key.replace("transformer_blocks.0.", "block.")
            for old, new in RENAMES:
                key = key.replace(old, new)
            yield key, value

    def forward(self, x_nld, height, width):
        x_nchw = rearrange(x_nld, "n (h w) c -> n c h w", h=height, w=width)
        y = rearrange(self._normed(x_nchw), "n c h w -> n h w c")
        cells = {"f": self.frames, "n": self.cell, "m": self.cell}
        y = rearrange(self.proj_in(y), "(b f) (h n) (w m) c -> (b h w) (f n m) c", **cells)
        y = rearrange(
            self.block(y),
            "(b h w) (f n m) c -> (b f) (h n w m) c",
            **cells,
            h=height // self.cell,
            w=width // self.cell,
        )
        return self.proj_out(y) + x_nld

    def _normed(self, x_nchw):
        if not self.joint_norm:
            return self.norm(x_nchw)
        clips = rearrange(x_nchw, "(b f) c h w -> b c f h w", f=self.frames)
        return rearrange(self.norm(clips), "b c f h w -> (b f) c h w")


def put_motion(transformer, modules, frames, layout):
    """Make a PixArt of diffusers use motion modules of ours' weights; `layout()` are its tokens along height and width."""
    for block, (_, place) in zip(transformer.transformer_blocks, modules.items(), strict=True):
        motion = GridReference(place.attn_temporal.temporal_transformer, frames)
        block.forward = MethodType(_moving(motion, layout), block)


def _moving(motion, layout):
    def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        timestep=None,
        **rest,
    ):
        rows = (self.scale_shift_table[None] + timestep.reshape(len(hidden_states), 6, -1)).chunk(6, dim=1)
        shift, scale, gate, shift_wide, scale_wide, gate_wide = rows
        x = hidden_states + gate * self.attn1(self.norm1(hidden_states) * (1 + scale) + shift)
        x = motion(x, *layout())
        x = x + self.attn2(x, encoder_hidden_states, attention_mask=encoder_attention_mask)
        return x + gate_wide * self.ff(self.norm2(x) * (1 + scale_wide) + shift_wide)

    return forward


def by_formula(rows, width):
    """sin and cos of p * 10000^(-2i / width) by turns, in float32 throughout, (rows, width)."""
    places = torch.arange(rows, dtype=torch.float32)[:, None]
    steps = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float32) * -(torch.log(torch.tensor(1e4)) / width)
    )
    return torch.stack([(places * steps).sin(), (places * steps).cos()], dim=2).flatten(1)
