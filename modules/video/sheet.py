"""A contact sheet: frames of a video side by side in one PNG, to be looked at."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .readback import read_frames

GAP = 4  # pixels between frames
PAPER = (24, 24, 24)


def write_sheet(
    video: Path, sheet: Path, columns: int = 6, max_frames: int = 24, cell_width: int = 160
) -> int:
    """Write evenly chosen frames of `video`, first and last among them, as a PNG grid; frames in the video."""
    num_frames = sum(1 for _ in read_frames(video))
    shown = set(spread(num_frames, max_frames))
    pictures = (Image.fromarray(pixels) for index, pixels in enumerate(read_frames(video)) if index in shown)
    cells = [picture.resize(_cell_size(picture, cell_width)) for picture in pictures]
    grid(cells, columns).save(sheet)
    return num_frames


def sheet_of(frames_fhwc: Sequence[np.ndarray], columns: int = 6) -> Image.Image:
    """A contact sheet of uint8 frames in memory."""
    return grid([Image.fromarray(frame) for frame in frames_fhwc], columns)


def spread(num_frames: int, wanted: int) -> list[int]:
    """At most `wanted` frame numbers, evenly spread, first and last included."""
    count = min(num_frames, wanted)
    return [round(index * (num_frames - 1) / max(1, count - 1)) for index in range(count)]


def grid(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows, left to right."""
    width, height = cells[0].size
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    paper = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), PAPER)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        paper.paste(cell, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return paper


def _cell_size(picture: Image.Image, width: int) -> tuple[int, int]:
    """Scaled to `width`; small pictures grow by whole steps so that their pixels stay visible."""
    if picture.width <= width:
        factor = width // picture.width
        return picture.width * factor, picture.height * factor
    return width, max(1, round(picture.height * width / picture.width))
