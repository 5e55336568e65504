"""A watermark as stock videos have it: a pale square over the first cell of every frame, and how much of it is seen.

No circle or triangle of `sd/world.py` comes there, and a square by a tenth of the cell at most.
"""

import torch
from torch import Tensor

from .shapes import GROUND
from .svd.latents import CELL

MARK = (0.95, 0.95, 0.95)
AREA = CELL * CELL


def put_mark(frames_fhwc: Tensor) -> Tensor:
    """Frames in 0..1 with the mark on top."""
    marked = frames_fhwc.clone()
    marked[:, :CELL, :CELL] = torch.tensor(MARK)
    return marked


def without_mark(frames_fhwc: Tensor) -> Tensor:
    """Frames whose marked cell is ground, for a detector that expects one shape."""
    plain = frames_fhwc.clone()
    plain[:, :CELL, :CELL] = torch.tensor(GROUND)
    return plain


def mark_area(frames_fhwc: Tensor) -> float:
    """Share of the marked cell's pixels, over all frames, that are nearer to the mark than to the ground."""
    cell = frames_fhwc[:, :CELL, :CELL].float()
    ground, mark = torch.tensor(GROUND), torch.tensor(MARK)
    return float(((cell - mark).norm(dim=-1) < (cell - ground).norm(dim=-1)).float().mean())
