"""The convolutional blocks of the SVD UNet. Frames lie on the batch axis, clip after clip.

Stable Video Diffusion (arXiv 2311.15127), appendix D; parameter names of Stability-AI/generative-models.
Without a graph everything that treats frames alone runs a few frames at a time, and tensors are changed in
place; both change results by rounding only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import slabs
from ...layers.hooks import NO_HOOKS, Hooks
from ...layers.operations import Operations, is_recorded
from .temporal import EPS, GROUPS, TemporalResBlock, activate


@dataclass(frozen=True)
class Clips:
    """What every block needs to know of the clips of a batch."""

    frames: int  # per clip
    emb_bte: Tensor  # after its SiLU; t is 1 where the frames of a clip share a row
    context_btld: Tensor  # likewise
    image_only_bt: Tensor | None = None  # frames that no temporal half may touch
    transformer_options: Any = None
    hooks: Hooks = NO_HOOKS

    def per_frame(self, rows_bt: Tensor) -> Tensor:
        """(b, 1 or t, ...) as (b * t, ...)."""
        return rows_bt.expand(-1, self.frames, *rows_bt.shape[2:]).flatten(0, 1)


class TimeMixer(nn.Module):
    """The learned share of the spatial half; a module of its own for the name it has in checkpoints."""

    def __init__(self, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.mix_factor = nn.Parameter(torch.empty(1, **factory))

    def temporal_share(self, clips: Clips, like: Tensor) -> Tensor:
        """1 - sigmoid(mix_factor), zero for frames that are images only: (b or 1, 1, t or 1, 1)."""
        share = torch.sigmoid(-self.ops.cast(self.mix_factor, like))[:, None, None, None]
        if clips.image_only_bt is None:
            return share
        return torch.where(clips.image_only_bt[:, None, :, None], 0, share)


class VideoResBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around a shortcut; then the same over time."""

    def __init__(self, channels_in: int, channels_out: int, emb_dim: int, ops: Operations, **factory):
        super().__init__()
        self.in_layers = nn.ModuleList(_layers(channels_in, channels_out, ops, factory, before_conv=1))
        self.emb_layers = nn.ModuleList([nn.Identity(), ops.Linear(emb_dim, channels_out, **factory)])
        self.out_layers = nn.ModuleList(_layers(channels_out, channels_out, ops, factory, before_conv=2))
        self.skip_connection = nn.Identity()
        if channels_in != channels_out:
            self.skip_connection = ops.Conv2d(channels_in, channels_out, kernel_size=1, **factory)
        self.time_stack = TemporalResBlock(channels_out, emb_dim, EPS, ops, **factory)
        self.time_mixer = TimeMixer(ops, **factory)
        self.channels_out = channels_out

    def forward(self, parts: list[Tensor], clips: Clips) -> Tensor:
        """`parts` lie side by side on the channel axis; the list is emptied, so that they can be freed."""
        emb_nc = clips.per_frame(self.emb_layers[1](clips.emb_bte))
        x_nchw = self._spatial(parts, emb_nc[..., None, None])
        share = self.time_mixer.temporal_share(clips, x_nchw)
        return self.time_stack(x_nchw, clips.frames, share, clips.emb_bte)

    def _spatial(self, parts: list[Tensor], emb_nc11: Tensor) -> Tensor:
        if is_recorded():
            x_nchw, change_nchw = self._both(parts, emb_nc11)
            return x_nchw + change_nchw
        n, _, h, w = parts[0].shape
        out_nchw = parts[0].new_empty(n, self.channels_out, h, w)
        for place in slabs.UNET.spans(n, self.channels_out * h * w, out_nchw.device):
            halves = self._both([part[place] for part in parts], emb_nc11[place])
            torch.add(*halves, out=out_nchw[place])
        parts.clear()
        return out_nchw

    def _both(self, parts: list[Tensor], emb_nc11: Tensor) -> tuple[Tensor, Tensor]:
        """Shortcut and change."""
        x_nchw = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        y_nchw = self.in_layers[2](activate(self.in_layers[0](x_nchw)))
        y_nchw = y_nchw + emb_nc11 if is_recorded() else y_nchw.add_(emb_nc11)
        x_nchw = self.skip_connection(x_nchw)
        y_nchw = activate(self.out_layers[0](y_nchw))
        return x_nchw, self.out_layers[3](y_nchw)


def _layers(
    channels_in: int, channels_out: int, ops: Operations, factory: dict, before_conv: int
) -> list[nn.Module]:
    """A norm, what has no weights, a convolution: numbered as in the checkpoints."""
    norm = ops.GroupNorm(GROUPS, channels_in, eps=EPS, **factory)
    conv = ops.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, **factory)
    return [norm, *(nn.Identity() for _ in range(before_conv)), conv]


class Downsample(nn.Module):
    """Half the height and width, odd sides rounded up."""

    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.op = ops.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, **factory)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return self.op(x_nchw)


class Upsample(nn.Module):
    """Nearest resizing to a height and width, then a convolution."""

    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, kernel_size=3, padding=1, **factory)

    def forward(self, x_nchw: Tensor, size_hw: Sequence[int]) -> Tensor:
        if is_recorded():
            return self._resized(x_nchw, size_hw)
        out_nchw = x_nchw.new_empty(*x_nchw.shape[:2], *size_hw)
        for place in slabs.UNET.spans(len(x_nchw), out_nchw[0].numel(), x_nchw.device):
            out_nchw[place] = self._resized(x_nchw[place], size_hw)
        return out_nchw

    def _resized(self, x_nchw: Tensor, size_hw: Sequence[int]) -> Tensor:
        return self.conv(F.interpolate(x_nchw, size=size_hw, mode="nearest"))
