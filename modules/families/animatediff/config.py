"""What a motion module's shapes tell: the UNet it goes into, its release, and what follows from that.

AnimateDiff (arXiv 2307.04725), with the table of guoyww/AnimateDiff's configurations: which norms of each release saw a
whole clip at once in training, and which saw frame by frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...layers.temporal_block import BlockSizes
from ...noise import DiscreteNoise
from ...weights.part import Shapes, check_groups, count_numbered, lengths
from ..family import Limits, Size

Version = Literal["v1", "v2", "v3", "SDXL beta", "AnimateLCM", "v1 or v3"]
# what a user may name a file whose keys do not tell; the last is what nobody can tell
VERSIONS: tuple[Version, ...] = ("v1", "v2", "v3", "SDXL beta", "AnimateLCM")
UNSURE: Version = "v1 or v3"
# rows of the position table where a file holds none
ROWS: Mapping[Version, int] = {"v1": 24, "v2": 32, "v3": 32, "SDXL beta": 32, "AnimateLCM": 64, UNSURE: 24}
# levels of the UNet of SDXL
SDXL_LEVELS = 3
CLIP_FRAMES = 16
GROUPS = 32
# Linear in beta: "linear" to diffusers, "sqrt_linear" to ComfyUI. That of SDXL is linear in its root: "scaled_linear" to
# diffusers, "linear" to ComfyUI.
LINEAR = DiscreteNoise("epsilon", 0.00085, 0.012, "linear")
SDXL_LINEAR = DiscreteNoise("epsilon", 0.00085, 0.020, "scaled_linear")

MODULE = "motion_modules.0.temporal_transformer."
TABLE = "transformer_blocks.0.attention_blocks.{}.pos_encoder.pe"


@dataclass(frozen=True)
class Base:
    """A UNet of pictures, as far as motion modules are concerned."""

    # by level, from the finest
    channels: tuple[int, ...]
    # ResBlocks of each level on the way down; the way up has one more
    layers: int
    # width of its text tokens
    context_dim: int

    @property
    def label(self) -> str:
        """As a user knows it."""
        if len(self.channels) == SDXL_LEVELS:
            return "SDXL"
        return "SD2" if self.context_dim == 1024 else "SD1.5"


@dataclass(frozen=True)
class MotionConfig:
    """The sizes of one motion-module file."""

    # of the modules, by level of the UNet, from the finest
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    # modules of each level on the way down; the way up has one more
    layers: int = 2
    # whether there is one in the middle
    mid: bool = False
    # frames that it has positions for
    rows: int = 32
    # position tables in the file for each module: one for each attention, one for both, or none
    tables: Literal[0, 1, 2] = 2
    version: Version = "v3"
    # of each module
    attentions: Literal[1, 2] = 2
    # whether there are some on the way up
    up: bool = True

    @property
    def block(self) -> BlockSizes:
        """What each block over time is told."""
        return BlockSizes(self.rows, self.tables, self.attentions)

    @property
    def joint_norm(self) -> bool:
        """Whether the module's own group norm sees a whole clip; else every frame alone."""
        return self.version == "SDXL beta"

    @property
    def joint_base_norms(self) -> bool:
        """Whether the group norms of the UNet's ResBlocks, and its last one, see a whole clip."""
        return self.version == "v1"

    @property
    def noise(self) -> DiscreteNoise:
        """The schedule that it was trained with."""
        return SDXL_LINEAR if self.version == "SDXL beta" else LINEAR

    @property
    def native_size(self) -> Size:
        """Width and height in pixels, frames."""
        side = 1024 if self.version == "SDXL beta" else 512
        return side, side, CLIP_FRAMES

    @property
    def limits(self) -> Limits:
        """No more frames than there are positions."""
        return Limits(max_frames=self.rows)

    def check_frames(self, label: str, frames: int) -> None:
        """ValueError for a clip of more frames than there are positions, of what people know as `label`."""
        if frames > self.rows:
            raise ValueError(
                f"{label} has positions for {self.rows} frames: got {frames}. Make at most {self.rows}, or put Context "
                f"Windows of at most {self.rows} frames behind the model for a longer clip."
            )

    @property
    def base_label(self) -> str:
        """What it goes into, for people."""
        return "SDXL" if self.version == "SDXL beta" else "SD1.5"

    def named(self, version: Version) -> "MotionConfig":
        """The same sizes as another release; ValueError where the file says itself that it is none."""
        rows = self.rows if self.tables else ROWS[version]
        told = replace(self, version=version, rows=rows)
        if (told.version == "SDXL beta") != (len(self.channels) == SDXL_LEVELS):
            raise ValueError(f"it has {len(self.channels)} levels, {version} has another number.")
        if self.mid and version in ("v1", "v3"):
            raise ValueError(f"it has a module in the middle of the UNet, {version} has none.")
        if not self.mid and version in ("v2", "AnimateLCM"):
            raise ValueError(f"it has no module in the middle of the UNet, {version} has one.")
        return told


# the v2 layout first: MotionLoRAs were made for it
PUBLISHED = (
    MotionConfig(mid=True, version="v2"),
    MotionConfig(),
    MotionConfig(rows=24, version="v1"),
    MotionConfig((320, 640, 1280), version="SDXL beta"),
)


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> MotionConfig:
    """The config of a file by its shapes in our naming; KeyError for a key that it lacks, ValueError for odd shapes."""
    levels = count_numbered(shapes, "down_blocks.")
    channels = tuple(
        lengths(shapes, f"down_blocks.{level}.{MODULE}proj_in.weight", 2)[0] for level in range(levels)
    )
    check_groups(channels, GROUPS)
    layers = count_numbered(shapes, "down_blocks.0.motion_modules.")
    first = f"down_blocks.0.{MODULE}{TABLE}"
    tables = sum(first.format(number) in shapes for number in range(2))
    mid = f"mid_block.{MODULE}proj_in.weight" in shapes
    rows = lengths(shapes, first.format(0), 3)[1] if tables else 0
    version = _version(levels, mid, rows)
    return MotionConfig(channels, layers, mid, rows or ROWS[version], tables, version)  # type: ignore[arg-type]


def _version(levels: int, mid: bool, rows: int) -> Version:
    """The release, as far as keys tell; 0 rows: the file holds no positions."""
    if levels == SDXL_LEVELS:
        return "SDXL beta"
    if mid:
        return "v2" if rows else "AnimateLCM"
    return {24: "v1", 32: "v3"}.get(rows, UNSURE)  # type: ignore[return-value]


def check_fit(name: str, config: MotionConfig, base: Base) -> None:
    """ValueError unless the modules of a file have their places in a UNet."""
    if base.label == "SD2":
        raise ValueError(f"{name} is a motion module for {config.base_label}: the model is SD2.")
    ours, theirs = (config.channels, config.layers), (base.channels, base.layers)
    if ours != theirs:
        raise ValueError(
            f"{name} is AnimateDiff {config.version} for {config.base_label}, {_sizes(*ours)}: the model is "
            f"{base.label} with {_sizes(*theirs)}."
        )


def _sizes(channels: tuple[int, ...], layers: int) -> str:
    return f"{layers} blocks a level of {', '.join(map(str, channels))} channels"
