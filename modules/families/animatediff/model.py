"""AnimateDiff's motion modules: attention over the frames of a pixel, put behind blocks of a UNet of pictures.

AnimateDiff (arXiv 2307.04725), sec. 4.2; parameter names of guoyww/AnimateDiff. Frames lie on the batch axis, clip after
clip: (n, c, h, w) with n = b * t. Without a graph a module works on a few pixels at a time, which all of its layers but
the group norm leave alone: only that one sees a frame, or a clip, as a whole.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ...layers import slabs
from ...layers.attention import MOST_SEQUENCES, Attention
from ...layers.calls import Call, call_layer, fetched, layers_of
from ...layers.network import Factory, Network
from ...layers.operations import Operations, is_recorded, is_taken_over
from ...layers.temporal_block import AT_ONCE, HEADS, Positions, TemporalBlock, sinusoid_table
from .config import GROUPS, MotionConfig

GROUP_NORM_EPS = 1e-6


class MotionTransformer(nn.Module):
    """Group norm, a block over time between two linear layers, and a shortcut."""

    def __init__(
        self, channels: int, config: MotionConfig, ops: Operations, attention: Attention, **factory: Any
    ):
        super().__init__()
        self.ops, self.joint_norm = ops, config.joint_norm
        self.norm = ops.GroupNorm(GROUPS, channels, eps=GROUP_NORM_EPS, **factory)
        self.proj_in = ops.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList(
            [TemporalBlock(channels, config.block, ops, attention, **factory)]
        )
        self.proj_out = ops.Linear(channels, channels, **factory)

    @property
    def block(self) -> TemporalBlock:
        return self.transformer_blocks[0]  # type: ignore[return-value]

    def forward(self, x_nchw: Tensor, frames: int, strength: float = 1.0, options: Any = None) -> Tensor:
        """x + strength * change of clips of `frames` frames; ValueError for more than it has positions for."""
        tables = self.block.tables(frames, x_nchw[:0, :, 0, 0], self.ops)
        if is_recorded() or any(is_taken_over(layer) for layer in layers_of(self)):
            return self._whole(x_nchw, tables, strength, options)
        return self._by_pixels(x_nchw, tables, strength, options)

    def _whole(self, x_nchw: Tensor, tables: list[Tensor], strength: float, options: Any) -> Tensor:
        """The formula, all pixels at once."""
        frames, height = len(tables[0]), x_nchw.shape[2]
        y_nchw = over_clips(self.norm, x_nchw, frames) if self.joint_norm else self.norm(x_nchw)
        tokens = rearrange(y_nchw, "(b t) c h w -> (b h w) t c", t=frames)
        tokens = self._change(tokens, tables, call_layer, options)
        return x_nchw + strength * rearrange(
            tokens, "(b h w) t c -> (b t) c h w", b=len(x_nchw) // frames, h=height
        )

    def _by_pixels(self, x_nchw: Tensor, tables: list[Tensor], strength: float, options: Any) -> Tensor:
        """The same, a few pixels at a time, with weights fetched once."""
        frames, channels = len(tables[0]), x_nchw.shape[1]
        x_btcl = x_nchw.flatten(2).unflatten(0, (-1, frames))
        scale_btc1, shift_btc1 = self._norm_maps(x_nchw, frames)
        out_btcl = torch.empty_like(x_btcl)
        clips, _, _, pixels = x_btcl.shape
        with fetched(
            (layer for layer in layers_of(self) if layer is not self.norm), x_nchw, self.ops
        ) as call:
            for place in self._spans(pixels, clips, frames * channels, x_nchw.device):
                piece = x_btcl[..., place]
                normed = torch.addcmul(shift_btc1, piece, scale_btc1).to(piece.dtype)
                tokens = rearrange(normed, "b t c l -> (b l) t c")
                del normed
                change = self._change(tokens, tables, call, options)
                del tokens
                change = rearrange(change, "(b l) t c -> b t c l", b=clips)
                torch.add(piece, change, alpha=strength, out=out_btcl[..., place])
        return out_btcl.view(x_nchw.shape)

    def _spans(self, pixels: int, clips: int, numbers: int, device: torch.device) -> Iterator[slice]:
        """The pixels that are worked on at once; each is of so many clips, with so many numbers in one of them."""
        step = min(AT_ONCE.at_once(8 * numbers * clips, device), max(1, MOST_SEQUENCES // (HEADS * clips)))
        return (slice(start, min(start + step, pixels)) for start in range(0, pixels, step))

    def _change(self, y_ptc: Tensor, tables: list[Tensor], call: Call, options: Any) -> Tensor:
        x_ptc = self.block(call(self.proj_in, y_ptc), tables, call, options)
        return call(self.proj_out, x_ptc)

    def _norm_maps(self, x_nchw: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """The group norm as a scale and a shift of every frame and channel, (b, t, c, 1)."""
        if self.joint_norm:
            pieces = list(x_nchw.unflatten(0, (-1, frames)).unbind(1))
        else:
            pieces = [x_nchw]
        affine = slabs.affine_of(self.norm, pieces, self.ops)
        maps = (part.flatten(2) for part in (affine.scale, affine.shift))
        shape = (-1, 1) if self.joint_norm else (-1, frames)
        scale, shift = (part.unflatten(0, shape) for part in maps)
        return scale, shift


def over_clips(norm: nn.Module, x_nchw: Tensor, frames: int) -> Tensor:
    """A norm with statistics over all frames of a clip."""
    x_bcthw = x_nchw.unflatten(0, (-1, frames)).transpose(1, 2)
    return norm(x_bcthw).transpose(1, 2).flatten(0, 1)


class MotionModule(nn.Module):
    """One module, under the name that checkpoints give it."""

    def __init__(self, *args: Any, **factory: Any):
        super().__init__()
        self.temporal_transformer = MotionTransformer(*args, **factory)

    def forward(self, x_nchw: Tensor, frames: int, strength: float = 1.0, options: Any = None) -> Tensor:
        return self.temporal_transformer(x_nchw, frames, strength, options)


class Level(nn.Module):
    """The modules of one level on one way, or that in the middle."""

    def __init__(self, count: int, *args: Any, **factory: Any):
        super().__init__()
        self.motion_modules = nn.ModuleList(MotionModule(*args, **factory) for _ in range(count))


class MotionModules(Network):
    """All modules of a file."""

    def assemble(self, config: MotionConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        def level(count: int, channels: int) -> Level:
            return Level(count, channels, config, ops, attention, **factory)

        self.down_blocks = nn.ModuleList(level(config.layers, channels) for channels in config.channels)
        if config.mid:
            self.mid_block = level(1, config.channels[-1])
        if config.up:
            self.up_blocks = nn.ModuleList(
                level(config.layers + 1, channels) for channels in config.channels[::-1]
            )

    def items(self) -> Iterator[tuple[str, MotionModule]]:
        """(block of the UNet behind whose layers a module goes, by the names of CompVis/stable-diffusion; the module).

        In the middle it goes before the last ResBlock; before an upsampling.
        """
        layers = self.config.layers
        for i, level in enumerate(self.down_blocks):
            for j, module in enumerate(level.motion_modules):  # type: ignore[arg-type]
                yield f"input_blocks.{1 + i * (layers + 1) + j}", module
        if self.config.mid:
            yield "middle_block", self.mid_block.motion_modules[0]  # type: ignore[index]
        for i, level in enumerate(self.up_blocks if self.config.up else ()):
            for j, module in enumerate(level.motion_modules):  # type: ignore[arg-type]
                yield f"output_blocks.{i * (layers + 1) + j}", module

    def start(self) -> None:
        """Where training starts: modules that change nothing yet (sec. 4.2), positions in place."""
        for module in self.modules():
            if isinstance(module, MotionTransformer):
                nn.init.zeros_(module.proj_out.weight)
                nn.init.zeros_(module.proj_out.bias)
            elif isinstance(module, Positions):
                table = module.get_buffer("pe")
                table.copy_(sinusoid_table(*table.shape[1:]))
