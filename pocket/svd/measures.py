"""How fast and how evenly the shape of a clip moves, as the detector sees it; and how well a picture was kept."""

import torch
from torch import Tensor

from ..detector import centroids, foreground
from .world import SlidingClip

FAINT = 0.2  # cover below this is taken for ground: decoders tint it


def path_of(frames_fhwc: Tensor, pixels_per_cell: int = 1) -> Tensor:
    """Centre of the shape in each frame (f, 2), x then y, in pixels, of frames in 0..1."""
    cover = foreground(frames_fhwc.float())
    return centroids(cover * (cover > FAINT)) * pixels_per_cell


def steps_of(path_f2: Tensor, clip: SlidingClip) -> tuple[Tensor, Tensor]:
    """From frame to frame: pixels along the clip's direction, and pixels aside of it (f - 1)."""
    moves, forward = path_f2.diff(dim=0), clip.direction
    aside = torch.stack([-forward[1], forward[0]])
    return moves @ forward, moves @ aside


def speed_of(path_f2: Tensor, clip: SlidingClip) -> float:
    """Pixels a frame along the clip's direction, over the whole clip."""
    return steps_of(path_f2, clip)[0].mean().item()


def speed_error(path_f2: Tensor, clip: SlidingClip) -> float:
    """Mean distance of each step from the true one, in pixels: along the direction, plus aside."""
    along, aside = steps_of(path_f2, clip)
    return ((along - clip.speed).abs() + aside.abs()).mean().item()


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's, for lists without ties."""
    ranks = torch.stack([torch.tensor(x).argsort().argsort().double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()
