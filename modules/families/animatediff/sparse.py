"""SparseCtrl (arXiv 2311.16933): a ControlNet for AnimateDiff v3 that takes pictures of a few frames of a clip.

Sec. 3.2: the encoder of SD1.5 with motion modules of one attention each, by which key frames reach all others. It never
sees the noisy latents. The encoder is the host's own ControlNet; the motion modules beside it are ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...layers.temporal_block import HEADS
from ...weights.part import EmptyOperations, Shapes, check_groups, count_numbered, lengths
from .config import GROUPS, MODULE, TABLE, Base, MotionConfig
from .model import MotionModules
from .sparse_keys import MOTION

# what it takes of a key frame: a picture's latents, or the picture of a scribble
Condition = Literal["rgb", "scribble"]
HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)
LATENT_CHANNELS, PICTURE_CHANNELS = 4, 3
LAST_OF_STACK = "input_hint_block.14.weight"
TEXT = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@dataclass(frozen=True)
class SparseConfig(MotionConfig):
    """The sizes of one SparseCtrl file: of its motion modules, and with them of its encoder."""

    tables: Literal[0, 1, 2] = 1
    attentions: Literal[1, 2] = 1
    up: bool = False
    condition: Condition = "rgb"
    # width of the text tokens
    context_dim: int = 768
    # levels that have spatial transformers, from the finest
    attended: int = 3

    @property
    def takes_latents(self) -> bool:
        """Whether its pictures go through the VAE first."""
        return self.condition == "rgb"

    @property
    def hint_channels(self) -> int:
        """Channels of a key frame, with its mask behind."""
        return 1 + (LATENT_CHANNELS if self.takes_latents else PICTURE_CHANNELS)

    @property
    def heads(self) -> int:
        """Of every attention."""
        return HEADS


PUBLISHED = (SparseConfig(), SparseConfig(condition="scribble"))


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> SparseConfig:
    """The config of a file by its shapes in our naming; KeyError for a key that it lacks, ValueError for odd shapes."""
    levels = range(count_numbered(shapes, f"{MOTION}down_blocks."))
    channels = tuple(
        lengths(shapes, f"{MOTION}down_blocks.{level}.{MODULE}proj_in.weight", 2)[0] for level in levels
    )
    check_groups(channels, GROUPS)
    if any(wide % channels[0] for wide in channels):
        raise ValueError(f"its levels have {channels} channels, which are no multiples of the first.")
    table = f"{MOTION}down_blocks.0.{MODULE}{TABLE.format(0)}"
    tables = int(table in shapes)
    layers = count_numbered(shapes, f"{MOTION}down_blocks.0.motion_modules.")
    return SparseConfig(
        channels,
        layers=layers,
        rows=lengths(shapes, table, 3)[1] if tables else SparseConfig.rows,
        tables=tables,  # type: ignore[arg-type]
        condition="scribble" if LAST_OF_STACK in shapes else "rgb",
        context_dim=lengths(shapes, TEXT, 2)[1],
        attended=sum(f"input_blocks.{1 + level * (layers + 1)}.1.norm.weight" in shapes for level in levels),
    )


def check_fit(name: str, config: SparseConfig, base: Base) -> None:
    """ValueError unless what a file adds fits the blocks of a UNet."""
    ours = (config.channels, config.layers, config.context_dim)
    if ours != (base.channels, base.layers, base.context_dim):
        raise ValueError(
            f"{name} is SparseCtrl {config.condition} for {config.base_label}: the model is {base.label}"
            f"{'' if base.label != config.base_label else ' of other sizes'}. Use an SD1.5 model with AnimateDiff v3."
        )


def shapes_of(config: SparseConfig) -> Shapes:
    """Key -> shape of every weight, in our naming."""
    motion = MotionModules(config, ops=EmptyOperations, device="meta").state_dict()  # type: ignore[arg-type]
    return {**dict(_encoder(config)), **{MOTION + key: tuple(value.shape) for key, value in motion.items()}}


Named = Iterator[tuple[str, tuple[int, ...]]]


def _encoder(config: SparseConfig) -> Named:
    """The way down and the middle of SD1.5's UNet, and what a ControlNet has beside them."""
    width, emb = config.channels[0], 4 * config.channels[0]
    yield from _layer("time_embed.0", emb, width)
    yield from _layer("time_embed.2", emb, emb)
    yield from _layer("input_blocks.0.0", width, LATENT_CHANNELS, 3, 3)
    yield from _hint(config)
    yield from _layer("zero_convs.0.0", width, width, 1, 1)
    number, before = 1, width
    for level, channels in enumerate(config.channels):
        for _ in range(config.layers):
            yield from _res_block(f"input_blocks.{number}.0", before, channels, emb)
            if level < config.attended:
                yield from _transformer(f"input_blocks.{number}.1", channels, config.context_dim)
            yield from _layer(f"zero_convs.{number}.0", channels, channels, 1, 1)
            number, before = number + 1, channels
        if level < len(config.channels) - 1:
            yield from _layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            yield from _layer(f"zero_convs.{number}.0", channels, channels, 1, 1)
            number += 1
    for place in ("middle_block.0", "middle_block.2"):
        yield from _res_block(place, before, before, emb)
    yield from _transformer("middle_block.1", before, config.context_dim)
    yield from _layer("middle_block_out.0", before, before, 1, 1)


def _layer(name: str, *shape: int) -> Named:
    """A layer with a bias; of one length: a norm."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _hint(config: SparseConfig) -> Named:
    """What makes features of key frames: one convolution of latents, or a stack from pixels to latent cells."""
    width = config.channels[0]
    widths = (config.hint_channels, *(() if config.takes_latents else HINT_WIDTHS), width)
    for number, (before, channels) in enumerate(zip(widths, widths[1:], strict=False)):
        yield from _layer(f"input_hint_block.{2 * number}", channels, before, 3, 3)


def _res_block(place: str, before: int, channels: int, emb: int) -> Named:
    yield from _layer(f"{place}.in_layers.0", before)
    yield from _layer(f"{place}.in_layers.2", channels, before, 3, 3)
    yield from _layer(f"{place}.emb_layers.1", channels, emb)
    yield from _layer(f"{place}.out_layers.0", channels)
    yield from _layer(f"{place}.out_layers.3", channels, channels, 3, 3)
    if before != channels:
        yield from _layer(f"{place}.skip_connection", channels, before, 1, 1)


def _transformer(place: str, channels: int, context_dim: int) -> Named:
    block = f"{place}.transformer_blocks.0"
    yield from _layer(f"{place}.norm", channels)
    yield from _layer(f"{place}.proj_in", channels, channels, 1, 1)
    for attention, tokens in (("attn1", channels), ("attn2", context_dim)):
        yield f"{block}.{attention}.to_q.weight", (channels, channels)
        yield f"{block}.{attention}.to_k.weight", (channels, tokens)
        yield f"{block}.{attention}.to_v.weight", (channels, tokens)
        yield from _layer(f"{block}.{attention}.to_out.0", channels, channels)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _layer(f"{block}.{norm}", channels)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * channels, channels)
    yield from _layer(f"{block}.ff.net.2", channels, 4 * channels)
    yield from _layer(f"{place}.proj_out", channels, channels, 1, 1)
