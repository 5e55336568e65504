"""What EasyAnimate v1's motion module is told: sizes, cells, clips.

aigc-apps/EasyAnimate, tag v1; its motion module of the kind "VanillaGrid".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...grid import LatentGrid
from ...layers.temporal_block import BlockSizes
from ...weights.part import Shapes, check_groups, count_numbered, lengths
from ...weights.settings import whole
from ..family import Limits, Size
from ..pixart.config import GRID, PixArtConfig
from ..svd.config import told_size

GROUPS = 32
PLACE = "attn_temporal.temporal_transformer."
# of the position tables in the file; they are sinusoids and made anew
ROWS = 4096
MAX_CELL = 64


@dataclass(frozen=True)
class GridConfig:
    """Sizes of one file of motion modules. Defaults are those of easyanimate_v1_mm."""

    num_layers: int = 28
    # channels of a token
    width: int = 1152
    # tokens of a cell along each axis: those of one cell attend to one another in all frames
    cell: int = 2
    # of what the modules add
    strength: float = 1.0
    # width and height in pixels, frames, that it was trained on
    native_size: Size = (512, 512, 80)
    block: BlockSizes = BlockSizes(ROWS)

    @property
    def grid(self) -> LatentGrid:
        """PixArt's, for pictures of whole cells: what attends together is `cell` tokens wide and high."""
        return replace(GRID, patch_hw=GRID.patch_hw * self.cell)

    @property
    def limits(self) -> Limits:
        """No more frames than it has positions for."""
        return Limits(max_frames=self.block.rows)

    def check_clip(self, frames: int, cells_h: int, cells_w: int) -> None:
        """ValueError for a clip, in frames and latent cells, that the grid does not divide, naming the nearest sizes."""
        self.limits.check("EasyAnimate v1", cells_w, cells_h, frames)
        self.grid.check_cells("EasyAnimate v1", cells_h, cells_w)


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> GridConfig:
    """The config of a file by its shapes in our naming; KeyError for a key that it lacks, ValueError for odd shapes."""
    settings = settings or {}
    width = lengths(shapes, f"transformer_blocks.0.{PLACE}proj_in.weight", 2)[0]
    check_groups((width,), GROUPS)
    blocks = f"transformer_blocks.0.{PLACE}transformer_blocks.0.attention_blocks."
    return GridConfig(
        num_layers=count_numbered(shapes, "transformer_blocks."),
        width=width,
        cell=whole(settings, "block_size", GridConfig.cell, MAX_CELL),
        native_size=told_size(settings, GridConfig.native_size),
        block=BlockSizes(ROWS, attentions=count_numbered(shapes, blocks)),
    )


def check_fit(name: str, config: GridConfig, base: PixArtConfig) -> None:
    """ValueError unless the modules of a file have their places in a PixArt transformer."""
    ours, theirs = (config.num_layers, config.width), (base.num_layers, base.width)
    if ours != theirs:
        raise ValueError(
            f"{name} is an EasyAnimate v1 motion module for {ours[0]} blocks of {ours[1]} channels: this PixArt has "
            f"{theirs[0]} of {theirs[1]}. Use one made for this checkpoint."
        )
