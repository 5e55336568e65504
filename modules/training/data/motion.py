"""How much a clip moves, as a number of 0 to 127 that SVD is told.

ExVideo (modelscope/DiffSynth-Studio, `diffsynth/models/svd_unet.py` and its trainer) counts so; how its thresholds
were made is not said. For data of one's own they are the data's own quantiles.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BUCKETS = 128
# (bucket, the least score of it); between them straight lines, which is off by one bucket at most
KNOTS = (
    (0, 0.0),
    (1, 0.012206),
    (2, 0.015118),
    (4, 0.020614),
    (8, 0.028278),
    (16, 0.042368),
    (24, 0.057594),
    (32, 0.072588),
    (40, 0.087701),
    (48, 0.101985),
    (56, 0.116407),
    (64, 0.133418),
    (72, 0.151039),
    (80, 0.170252),
    (88, 0.192575),
    (96, 0.214723),
    (104, 0.243623),
    (112, 0.28125),
    (116, 0.303008),
    (120, 0.332138),
    (122, 0.354189),
    (124, 0.379234),
    (125, 0.401539),
    (126, 0.416079),
    (127, 0.440871),
)


def motion_score(frames_fhwc: Tensor) -> float:
    """Mean over pixels and channels of the deviation over time of frames in 0..1, counted in -1..1; 0 of one frame."""
    if len(frames_fhwc) < 2:
        return 0.0
    mean_hwc = frames_fhwc.float().mean(dim=0)
    # frame by frame: a sixth of the time of one call over all, and none of its memory
    squares_hwc = torch.zeros_like(mean_hwc)
    for frame_hwc in frames_fhwc:
        squares_hwc += (frame_hwc.float() - mean_hwc) ** 2
    return 2 * (squares_hwc / (len(frames_fhwc) - 1)).sqrt().mean().item()


def exvideo_thresholds() -> list[float]:
    """The least score of each bucket that ExVideo was trained with, from what is known of them."""
    buckets, scores = zip(*KNOTS, strict=True)
    return np.interp(np.arange(BUCKETS), buckets, scores).tolist()


def own_thresholds(scores: Sequence[float]) -> list[float]:
    """The least score of each bucket where every bucket holds about as many clips of a data set; the first is 0."""
    if not scores:
        raise ValueError("Motion buckets need the score of one clip at least: got none.")
    places = torch.arange(BUCKETS, dtype=torch.float64) / BUCKETS
    thresholds = torch.quantile(torch.tensor(scores, dtype=torch.float64), places).tolist()
    return [0.0, *thresholds[1:]]


def motion_bucket(score: float, thresholds: Sequence[float]) -> int:
    """The last bucket whose threshold the score reaches, 0 where it reaches none."""
    reached = [bucket for bucket, threshold in enumerate(thresholds) if threshold <= score]
    return max(reached, default=0)
