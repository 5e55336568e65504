"""What a configuration says of data, checked before any file is opened."""

from ...grid import LatentGrid
from ..recipe import Data
from .camera import rectangles
from .items import LEAST_SIDE, rows
from .sizes import base_of


def check_data(data: Data, grid: LatentGrid) -> None:
    """ValueError for choices that contradict each other or that a grid does not hold, with what to change."""
    for name in ("stride", "variants", "frames"):
        if getattr(data, name) < 1:
            raise ValueError(f"{name} must be 1 or more: got {getattr(data, name)}.")
    for name in ("fps", "token_size", "image_size"):
        if getattr(data, name) < 0:
            raise ValueError(f"{name} must be 0 or more: got {getattr(data, name):g}.")
    if not 0 <= data.start < data.end <= 1:
        raise ValueError(
            f"start and end must be parts of a file with 0 <= start < end <= 1: got {data.start:g} and {data.end:g}."
        )
    rows((), data.video_repeat)
    _check_size(data, grid)
    grid.latent_frames(data.frames)
    if data.camera:
        rectangles(data.camera, data.frames, data.height, data.width)
        if data.flip:
            raise ValueError(f"flip would turn the movement {data.camera} around: set flip = false.")


def _check_size(data: Data, grid: LatentGrid) -> None:
    if min(data.width, data.height) < LEAST_SIDE:
        raise ValueError(
            f"width and height must be {LEAST_SIDE} pixels or more: got {data.width} and {data.height}."
        )
    if not data.buckets:
        grid.latent_size(data.width, data.height)
    if data.image_size and data.image_size < base_of(data):
        raise ValueError(
            f"image_size must be 0 or at least that of the clips, {base_of(data)}: got {data.image_size}. Make it "
            "larger, or width and height smaller."
        )
