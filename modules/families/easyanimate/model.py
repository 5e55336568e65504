"""EasyAnimate v1's motion modules: attention over the frames of small cells of tokens, in every block of PixArt.

aigc-apps/EasyAnimate, tag v1, "VanillaGrid": a sequence is all frames of a cell of 2x2 tokens, so that motion may cross
from one token to the next. Pictures of a clip lie behind each other, (n, l, d) with n = b * f. Without a graph a module
works on a few cells at a time: only its group norm, which sees frame by frame, reaches over more than one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ...layers import slabs
from ...layers.attention import MOST_SEQUENCES, Attention
from ...layers.calls import Call, calling
from ...layers.network import Factory, Network
from ...layers.operations import Operations, is_recorded
from ...layers.temporal_block import HEADS, TemporalBlock
from ..pixart.blocks import Layout
from .config import GROUPS, GridConfig

GROUP_NORM_EPS = 1e-6


class GridTransformer(nn.Module):
    """Group norm, a block over frames and cells between two linear layers, and a shortcut."""

    def __init__(self, config: GridConfig, ops: Operations, attention: Attention, **factory: Any):
        super().__init__()
        self.ops, self.cell, self.strength = ops, config.cell, config.strength
        width = config.width
        self.norm = ops.GroupNorm(GROUPS, width, eps=GROUP_NORM_EPS, **factory)
        self.proj_in = ops.Linear(width, width, **factory)
        self.transformer_blocks = nn.ModuleList(
            [TemporalBlock(width, config.block, ops, attention, **factory)]
        )
        self.proj_out = ops.Linear(width, width, **factory)

    @property
    def block(self) -> TemporalBlock:
        return self.transformer_blocks[0]  # type: ignore[return-value]

    def forward(self, x_nld: Tensor, layout: Layout, options: Any) -> Tensor:
        """x + strength * change; in place unless a graph is being recorded. ValueError for parts of clips."""
        if len(x_nld) % layout.frames:
            raise ValueError(
                f"EasyAnimate v1 got {len(x_nld)} pictures, which are no clips of {layout.frames}. ComfyUI's context windows "
                "add a picture where causal_window_fix is on: switch it off, or use Context Windows of this pack."
            )
        tables = [
            table.repeat_interleave(self.cell**2, dim=0)
            for table in self.block.tables(layout.frames, x_nld[:0, 0], self.ops)
        ]
        cells = (
            -1,
            layout.frames,
            layout.height // self.cell,
            self.cell,
            layout.width // self.cell,
            self.cell,
        )
        x = x_nld.view(*cells, x_nld.shape[2])
        with calling(self, x_nld, self.ops) as call:
            if is_recorded():
                y_nld = self.norm(x_nld.transpose(1, 2)).transpose(1, 2)
                return (x + self._change(y_nld.reshape(x.shape), tables, call, options)).view(x_nld.shape)
            scale, shift = (
                part.view(len(x), layout.frames, *[1] * 4, x_nld.shape[2]) for part in self._norm_maps(x_nld)
            )
            for rows, columns in self._spans(x):
                piece = x[:, :, rows, :, columns]
                y = torch.addcmul(shift, piece, scale).to(piece.dtype)
                piece.add_(self._change(y, tables, call, options))
        return x_nld

    def _spans(self, x: Tensor) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the cells that are worked on at once."""
        clips, frames, rows, _, columns, _, width = x.shape
        numbers = clips * frames * self.cell**2 * 8 * width
        most = min(slabs.TOKENS.at_once(numbers, x.device), max(1, MOST_SEQUENCES // (HEADS * clips)))
        high, wide = max(1, most // columns), min(most, columns)
        for row in range(0, rows, high):
            for column in range(0, columns, wide):
                yield slice(row, min(row + high, rows)), slice(column, min(column + wide, columns))

    def _change(self, y: Tensor, tables: list[Tensor], call: Call, options: Any) -> Tensor:
        """What is added to some cells (b, f, h, n, w, m, d), from what the norm gives of them."""
        b, f, h, n, w, m, _ = y.shape
        tokens = rearrange(y, "b f h n w m d -> (b h w) (f n m) d")
        del y
        tokens = self.block(call(self.proj_in, tokens), tables, call, options)
        tokens = call(self.proj_out, tokens)
        if self.strength != 1:
            tokens = self.strength * tokens
        return rearrange(tokens, "(b h w) (f n m) d -> b f h n w m d", b=b, h=h, w=w, n=n, m=m)

    def _norm_maps(self, x_nld: Tensor) -> tuple[Tensor, Tensor]:
        """The group norm of every picture as a scale and a shift of each channel, (n, 1, d), in float32 or better."""
        moments = [self._moments(x_nld[place]) for place in self._pictures(x_nld)]
        mean_nd, rstd_nd = (
            torch.cat(parts).repeat_interleave(x_nld.shape[2] // GROUPS, dim=1)
            for parts in zip(*moments, strict=True)
        )
        with self.ops.weights(self.norm, x_nld) as (weight, bias):
            scale_nd = rstd_nd * weight.to(rstd_nd.dtype)
            shift_nd = bias.to(rstd_nd.dtype) - mean_nd * scale_nd  # type: ignore[union-attr]
        return scale_nd[:, None], shift_nd[:, None]

    def _pictures(self, x_nld: Tensor) -> Iterator[slice]:
        return slabs.TOKENS.spans(len(x_nld), x_nld[0].numel(), x_nld.device)

    def _moments(self, x_nld: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation (n, groups)."""
        rows_ngk = x_nld.unflatten(2, (GROUPS, -1)).transpose(1, 2).flatten(2)
        exact = torch.promote_types(x_nld.dtype, torch.float32)
        variance_ng, mean_ng = torch.var_mean(rows_ngk.to(exact), dim=2, correction=0)
        return mean_ng, torch.rsqrt(variance_ng + GROUP_NORM_EPS)


class GridMotion(nn.Module):
    """One module, under the name that checkpoints give it."""

    def __init__(self, *args: Any, **factory: Any):
        super().__init__()
        self.temporal_transformer = GridTransformer(*args, **factory)

    def forward(self, x_nld: Tensor, layout: Layout, options: Any) -> Tensor:
        return self.temporal_transformer(x_nld, layout, options)


class Place(nn.Module):
    """What goes into one block of PixArt."""

    def __init__(self, *args: Any, **factory: Any):
        super().__init__()
        self.attn_temporal = GridMotion(*args, **factory)


class GridModules(Network):
    """All modules of a file."""

    def assemble(self, config: GridConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        self.transformer_blocks = nn.ModuleList(
            Place(config, ops, attention, **factory) for _ in range(config.num_layers)
        )

    def items(self) -> Iterator[tuple[str, Place]]:
        """(block of the transformer, what goes into it)."""
        for number, place in enumerate(self.transformer_blocks):
            yield f"transformer_blocks.{number}", place  # type: ignore[misc]

    def put_into(self, transformer: nn.Module) -> None:
        """Make a transformer use these modules. A host swaps them in by its own means instead."""
        for place, own in self.items():
            transformer.get_submodule(place).attn_temporal = own.attn_temporal

    def start(self) -> None:
        """Where training starts: modules that change nothing yet."""
        for _, place in self.items():
            out = place.attn_temporal.temporal_transformer.proj_out
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
