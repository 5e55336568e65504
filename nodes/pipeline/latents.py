"""Empty clips, told in pixels and frames."""

from typing import Any

import torch

from ...modules.families import FAMILIES
from ...modules.families.family import Size
from ...modules.grid import LatentGrid
from ..host.backend import machine_memory
from ..host.description import VideoModel, describe
from ..host.guards import NUM_FRAMES

GRIDS = {family.id: family.diffusion.grid for family in FAMILIES if family.diffusion}
FROM_MODEL = "from the model"


def size_problem(family: str | None, size: Size) -> str | None:
    """Why a clip of a family cannot be of a size, naming the nearest that can; None where nobody can tell yet."""
    grid = GRIDS.get(family or FAMILIES[0].id)
    try:
        if grid is not None:
            check_memory(grid, size)
    except ValueError as error:
        return str(error)
    return None


def empty_clips(family: str, size: Size, count: int, model: Any, node: str) -> dict[str, Any]:
    """A LATENT of zeros for `count` clips; a size of 0 is the model's own.

    (b, c, t, h, w), or (b * t, c, h, w) where frames lie on the batch axis. ValueError where a model is needed and
    none is there, is of another family, or cannot make such a clip.
    """
    described = None if model is None else describe(model, node)
    grid = _grid(family, described, node)
    size = _full_size(size, described)
    check_memory(grid, size, count)
    if described is not None:
        described.limits.check(described.label, *size)
        described.frame_rule.check(described.label, grid.latent_frames(size[2]), grid)
    channels, frames, height, width = latent_shape(grid, size)
    shape = (count * frames, channels, height, width)
    if not grid.frames_on_batch:
        shape = (count, channels, frames, height, width)
    return {"samples": torch.zeros(shape), NUM_FRAMES: size[2]}


def _grid(family: str, described: VideoModel | None, node: str) -> LatentGrid:
    """How the latents of a family by name, or of a MODEL, lie; ValueError where the two differ."""
    if family == FROM_MODEL:
        if described is None:
            raise ValueError(
                f"{node} was told to take the family {FROM_MODEL}: connect one, or choose a family."
            )
        return described.grid
    if described is not None and described.family != family:
        other = described.family
        remedy = f"choose {other} here" if other in GRIDS else "connect a model of that family"
        raise ValueError(
            f"{node} makes latents for {family}, but the connected model is {described.label}: {remedy}, choose "
            f"'{FROM_MODEL}', or disconnect the model."
        )
    return GRIDS[family]


def _full_size(size: Size, described: VideoModel | None) -> Size:
    if 0 not in size:
        return size
    if described is None:
        raise ValueError(f"A size of 0 means the model's own: connect a model, or set {size} by hand.")
    width, height, frames = (number or own for number, own in zip(size, described.native_size, strict=True))
    return width, height, frames


def latent_shape(grid: LatentGrid, size: Size) -> tuple[int, int, int, int]:
    """(channels, frames, height, width) in latent cells.

    Sizes of 0 or None (taken from the model, or linked) pass unchecked. ValueError names the nearest legal ones.
    """
    width, height, frames = size
    cells_w, cells_h = grid.latent_size(width or grid.multiple_hw, height or grid.multiple_hw)
    return grid.channels, grid.latent_frames(frames or 1), cells_h, cells_w


def check_memory(grid: LatentGrid, size: Size, count: int = 1) -> None:
    """ValueError for latents that this machine could not sample: noise and latents fill its memory together."""
    channels, frames, height, width = latent_shape(grid, size)
    needed, there = 4 * count * channels * frames * height * width, machine_memory()
    if 2 * needed > there:
        raise ValueError(
            f"width, height, num_frames or batch_size is too large: {count} x {size[2]} frames of "
            f"{size[0]}x{size[1]} are {needed / 1e9:.1f} GB of latents, with the noise {2 * needed / 1e9:.1f} GB, "
            f"and this machine has {there / 1e9:.1f} GB of memory."
        )
