"""The Stable Video Diffusion UNet: svd, svd_xt and XT 1.1, with or without ExVideo.

Stable Video Diffusion (arXiv 2311.15127), appendix D; parameter names of Stability-AI/generative-models.
Frames lie on the batch axis, clip after clip. It runs under a graph as it stands; without one, tensors are
changed in place, a slab at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import positions, slabs
from ...layers.attention import Attention
from ...layers.hooks import NO_HOOKS, Hooks, Inputs, Places, Stage
from ...layers.network import Factory, Network
from ...layers.operations import Operations, is_recorded
from .blocks import Clips, Downsample, Upsample, VideoResBlock
from .config import SVDConfig
from .long_positions import ExVideoPosition
from .temporal import EPS, GROUPS, activate
from .transformer import VideoTransformer


class SVDUNet(Network):
    """Predicts v from noisy latents beside the image's latent, a noise level, an image token and three numbers."""

    def assemble(self, config: SVDConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        first, emb_dim = config.channels[0], config.time_embed_dim
        self.time_embed = _perceptron(first, emb_dim, ops, factory)
        self.label_emb = nn.Sequential(_perceptron(config.adm_dim, emb_dim, ops, factory))
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([ops.Conv2d(config.in_channels, first, kernel_size=3, padding=1, **factory)])]
        )
        build = _Builder(config, ops, attention, factory)
        self.input_blocks.extend(build.down())
        self.middle_block = build.middle()
        self.output_blocks = nn.ModuleList(build.up())
        norm = ops.GroupNorm(GROUPS, first, eps=EPS, **factory)
        conv = ops.Conv2d(first, config.out_channels, kernel_size=3, padding=1, **factory)
        self.out = nn.ModuleList([norm, nn.Identity(), conv])
        self.places = _hook_places(self, config)
        self.in_channels = config.in_channels

    def forward(
        self,
        x_nchw: Tensor,
        timestep_n: Tensor,
        context_nld: Tensor,
        transformer_options: dict[str, Any] | None = None,
        y: Tensor | None = None,
        num_video_frames: int = 0,
        image_only_indicator: Tensor | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Tensor:
        """v of (b * t, in_channels, h, w) latents; (b * t, out_channels, h, w).

        `timestep_n` is a quarter of the logarithm of sigma, `context_nld` the CLIP embedding of the image,
        `y` (rows, adm_dim) the sinusoids of frame rate - 1, motion and noise of the image. Each has a row per
        frame, per clip, or one. `num_video_frames` is t; without it all rows are one clip. Frames that are
        true in `image_only_indicator`, (b, t) or flat, pass all temporal layers by. `hooks` see and change
        what flows at the places of `layers/hooks.py`. Raises ValueError for rows and channels that do not fit.
        """
        frames = self._frames(x_nchw, num_video_frames)
        hooks.begin(Inputs(x_nchw, timestep_n, context_nld, y, frames, image_only_indicator))
        clips = Clips(
            frames,
            self._embedding(x_nchw, timestep_n, y, frames, hooks),
            _by_clip(context_nld.to(x_nchw.dtype), x_nchw, frames, "context"),
            _image_only(image_only_indicator, x_nchw, frames),
            transformer_options,
            hooks,
        )
        skips = []
        for number, layers in enumerate(self.input_blocks):
            hooks.enter("input", number)
            x_nchw = hooks.after_input(_through(layers, [x_nchw], clips))
            skips.append(x_nchw)
            x_nchw = hooks.after_skip(x_nchw)
        hooks.enter("middle", 0)
        x_nchw = hooks.after_middle(_through(self.middle_block, [x_nchw], clips))
        for number, layers in enumerate(self.output_blocks):
            hooks.enter("output", number)
            parts = [part for part in hooks.before_output(x_nchw, skips.pop()) if part is not None]
            del x_nchw
            x_nchw = _through(layers, parts, clips, skips[-1].shape if skips else ())
        return self._head(x_nchw)

    def numbered_layers(self) -> Iterator[nn.Module]:
        for layers in (*self.input_blocks, self.middle_block, *self.output_blocks):
            yield from layers  # type: ignore[misc]

    def _frames(self, x_nchw: Tensor, num_video_frames: int) -> int:
        n, channels = x_nchw.shape[:2]
        if channels != self.config.in_channels:
            raise ValueError(
                f"This SVD UNet takes {self.config.in_channels} channels, noisy latents and image latents "
                f"side by side: got {channels}."
            )
        frames = num_video_frames or n
        if n % frames:
            raise ValueError(f"Clips of {frames} frames each fill a multiple of {frames} rows: got {n}.")
        return frames

    def _embedding(
        self, x_nchw: Tensor, timestep_n: Tensor, y: Tensor | None, frames: int, hooks: Hooks
    ) -> Tensor:
        if y is None:
            raise ValueError("SVD needs y, the sinusoids of frame rate, motion and noise: got none.")
        sinusoid_nd = positions.sinusoid(timestep_n, self.config.channels[0]).to(x_nchw.dtype)
        time_ne = hooks.time_embedding(self.time_embed(sinusoid_nd))
        time_bte = _by_clip(time_ne, x_nchw, frames, "timestep")
        label_bte = _by_clip(self.label_emb(y.to(x_nchw.dtype)), x_nchw, frames, "y")
        emb_bte = time_bte + label_bte
        hooks.embedding(emb_bte)
        return nn.functional.silu(emb_bte)

    def _head(self, x_nchw: Tensor) -> Tensor:
        norm, _, conv = self.out
        if is_recorded():
            return conv(activate(norm(x_nchw)))
        places = slabs.UNET.spans(len(x_nchw), x_nchw[0].numel(), x_nchw.device)
        return torch.cat([conv(activate(norm(x_nchw[place]))) for place in places])


class _Builder:
    """The blocks of the way down, the middle and the way up."""

    def __init__(self, config: SVDConfig, ops: Operations, attention: Attention, factory: dict):
        self.config, self.ops, self.attention, self.factory = config, ops, attention, factory
        self.skips = [config.channels[0]]  # channels of what the way up takes over

    def down(self) -> list[nn.ModuleList]:
        levels, channels = [], self.config.channels[0]
        for level, width in enumerate(self.config.channels):
            for _ in range(self.config.num_res_blocks):
                levels.append(nn.ModuleList(self._layers(channels, width, level)))
                channels = width
                self.skips.append(width)
            if not self._is_last(level):
                levels.append(nn.ModuleList([Downsample(width, self.ops, **self.factory)]))
                self.skips.append(width)
        return levels

    def middle(self) -> nn.ModuleList:
        width = self.config.channels[-1]
        return nn.ModuleList([self._res(width, width), self._transformer(width), self._res(width, width)])

    def up(self) -> list[nn.ModuleList]:
        blocks, channels = [], self.config.channels[-1]
        for level in reversed(range(len(self.config.channels))):
            width = self.config.channels[level]
            for i in range(self.config.num_res_blocks + 1):
                layers = self._layers(channels + self.skips.pop(), width, level)
                if level and i == self.config.num_res_blocks:
                    layers.append(Upsample(width, self.ops, **self.factory))
                blocks.append(nn.ModuleList(layers))
                channels = width
        return blocks

    def _is_last(self, level: int) -> bool:
        return level == len(self.config.channels) - 1

    def _layers(self, channels: int, width: int, level: int) -> list[nn.Module]:
        """A ResBlock and, above the last level, a transformer."""
        layers: list[nn.Module] = [self._res(channels, width)]
        return layers if self._is_last(level) else [*layers, self._transformer(width)]

    def _res(self, channels: int, width: int) -> VideoResBlock:
        return VideoResBlock(channels, width, self.config.time_embed_dim, self.ops, **self.factory)

    def _transformer(self, width: int) -> VideoTransformer:
        config = self.config
        sizes = (width, config.context_dim, config.head_dim)
        transformer = VideoTransformer(*sizes, self.ops, self.attention, **self.factory)
        if config.exvideo:
            transformer.positional = ExVideoPosition(width, self.ops, **self.factory)
        return transformer


def transformer_places(config: SVDConfig) -> dict[str, int]:
    """Where an SVD UNet has its transformers, and how many channels each has."""
    upper, repeats = list(enumerate(config.channels[:-1])), config.num_res_blocks
    steps = repeats + 1  # numbered blocks per level, either way
    down = {f"input_blocks.{steps * i + j + 1}.1": c for i, c in upper for j in range(repeats)}
    last = len(config.channels) - 1
    up = {f"output_blocks.{steps * (last - i) + j}.1": c for i, c in reversed(upper) for j in range(steps)}
    return {**down, "middle_block.1": config.channels[-1], **up}


def _perceptron(width: int, emb_dim: int, ops: Operations, factory: dict) -> nn.Sequential:
    return nn.Sequential(
        ops.Linear(width, emb_dim, **factory), nn.SiLU(), ops.Linear(emb_dim, emb_dim, **factory)
    )


def _hook_places(unet: SVDUNet, config: SVDConfig) -> Places:
    names = [name.split(".") for name in transformer_places(config)]
    numbered: list[tuple[Stage, int]] = [
        ("input" if name == "input_blocks" else "output", int(number))
        for name, number, *_ in names
        if name != "middle_block"
    ]
    blocks: dict[Stage, int] = {
        "input": len(unet.input_blocks),
        "middle": 1,
        "output": len(unet.output_blocks),
    }
    return Places(config.channels[0], blocks, frozenset([("middle", 0), *numbered]))


def _through(layers: nn.Module, parts: list[Tensor], clips: Clips, next_shape: Sequence[int] = ()) -> Tensor:
    """One numbered block. Without a graph only a ResBlock may be given what others still hold."""
    for layer in layers:  # type: ignore[attr-defined]
        instead = clips.hooks.instead_of(layer)
        if instead is not None:
            parts = [instead(_beside(parts), next_shape)]
        elif isinstance(layer, VideoResBlock):
            parts = [layer(parts, clips)]
        elif isinstance(layer, VideoTransformer):
            clips.hooks.enter_transformer(parts[0])
            parts = [layer(parts[0], clips)]
            clips.hooks.leave_transformer()
        elif isinstance(layer, Upsample):
            parts = [layer(parts[0], next_shape[2:])]
        else:
            parts = [layer(_beside(parts))]
    return parts[0]


def _beside(parts: list[Tensor]) -> Tensor:
    """Tensors side by side on the channel axis."""
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _by_clip(rows: Tensor, x_nchw: Tensor, frames: int, name: str) -> Tensor:
    """(n, ...) as (b, t, ...); a row per clip, or one, as (b, 1, ...)."""
    n = len(x_nchw)
    if len(rows) == n:
        return rows.unflatten(0, (-1, frames))
    if len(rows) not in (1, n // frames):
        raise ValueError(
            f"SVD takes a row of {name} per frame ({n}), per clip ({n // frames}) or one: got {len(rows)}."
        )
    return rows[:, None].expand(n // frames, 1, *rows.shape[1:])


def _image_only(indicator: Tensor | None, x_nchw: Tensor, frames: int) -> Tensor | None:
    if indicator is None:
        return None
    rows_bt = _by_clip(indicator.reshape(-1), x_nchw, frames, "image_only_indicator")
    return rows_bt.to(x_nchw.device).bool()
