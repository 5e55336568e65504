"""Sizes of clips: the aspect-ratio buckets that CogVideoX-Fun trains in, its budget of tokens, a picture's own size.

aigc-apps/CogVideoX-Fun and EasyAnimate, `bucket_sampler.py`: ASPECT_RATIO_512. diffusers' table of that name lacks
seven of the rows.
"""

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from ..grid import LatentGrid

# height / width as written there, then height and width at 512
BUCKETS: tuple[tuple[float, int, int], ...] = (
    (0.25, 256, 1024),
    (0.26, 256, 992),
    (0.27, 256, 960),
    (0.28, 256, 928),
    (0.32, 288, 896),
    (0.33, 288, 864),
    (0.35, 288, 832),
    (0.4, 320, 800),
    (0.42, 320, 768),
    (0.48, 352, 736),
    (0.5, 352, 704),
    (0.52, 352, 672),
    (0.57, 384, 672),
    (0.6, 384, 640),
    (0.68, 416, 608),
    (0.72, 416, 576),
    (0.78, 448, 576),
    (0.82, 448, 544),
    (0.88, 480, 544),
    (0.94, 480, 512),
    (1.0, 512, 512),
    (1.07, 512, 480),
    (1.13, 544, 480),
    (1.21, 544, 448),
    (1.29, 576, 448),
    (1.38, 576, 416),
    (1.46, 608, 416),
    (1.67, 640, 384),
    (1.75, 672, 384),
    (2.0, 704, 352),
    (2.09, 736, 352),
    (2.4, 768, 320),
    (2.5, 800, 320),
    (2.89, 832, 288),
    (3.0, 864, 288),
    (3.11, 896, 288),
    (3.62, 928, 256),
    (3.75, 960, 256),
    (3.88, 992, 256),
    (4.0, 1024, 256),
)
# Tokens of 49 frames at a square of so many pixels a side: what the three stages of Fun were trained with.
TOKENS = {13312: 512, 29952: 768, 53248: 1024}
# the frames that TOKENS are counted with
TOKEN_FRAMES = 49
# whether a network can sample so many latent frames
Fits = Callable[[int], bool]
# pixels on a side that Fun was trained on
LEAST, MOST = 256, 1280


def bucket_size(width: int, height: int, base: int, multiple: int = 16) -> tuple[int, int]:
    """(width, height) of the bucket nearest in height / width, scaled from 512 to `base`, down to whole multiples."""
    _, rows, columns = min(BUCKETS, key=lambda bucket: abs(bucket[0] - height / width))
    across, down = (side * base // 512 // multiple * multiple for side in (columns, rows))
    return max(across, multiple), max(down, multiple)


def token_frames(num_frames: int, base: int, tokens: int) -> int:
    """Frames that a budget of tokens leaves at a base size, at most `num_frames`; one at least.

    `tokens` is a key of TOKENS, counted with TOKEN_FRAMES frames: longer clips get no more of them.
    """
    return max(1, min(TOKEN_FRAMES * TOKENS[tokens] ** 2 // base**2, num_frames))


def own_size(width: int, height: int, multiple: int = 16) -> tuple[int, int]:
    """(width, height) in the nearest whole multiples, scaled into LEAST to MOST pixels a side.

    A picture more than MOST / LEAST times as long as wide has a short side below LEAST.
    """
    scale = min(MOST / max(width, height), max(1.0, LEAST / min(width, height)))
    most = MOST // multiple * multiple
    across, down = (min(nearest_multiple(side * scale, multiple), most) for side in (width, height))
    return across, down


def nearest_multiple(side: float | Fraction, multiple: int) -> int:
    """The whole multiple nearest to some pixels, one at least; of two, the lower."""
    return max(1, ceil(side / multiple - 0.5)) * multiple


def frames_below(grid: LatentGrid, num_frames: int, fits: Fits = lambda latent_frames: True) -> int:
    """The most frames, at most `num_frames`, that fold into latent frames which `fits`; the fewest where none do."""
    lone = int(grid.lone_first)
    latent_frames = max(1, (num_frames - lone) // grid.stride_t + lone)
    while latent_frames > 1 and not fits(latent_frames):
        latent_frames -= 1
    return grid.pixel_frames(_next_fit(latent_frames, fits))


def nearest_frames(grid: LatentGrid, num_frames: int, fits: Fits = lambda latent_frames: True) -> int:
    """The count nearest to `num_frames` that folds into latent frames which `fits`; of two, the lower."""
    low = frames_below(grid, num_frames, fits)
    high = grid.pixel_frames(_next_fit(grid.latent_frames(low) + 1, fits))
    return high if high - num_frames < num_frames - low else low


def _next_fit(latent_frames: int, fits: Fits) -> int:
    while not fits(latent_frames):
        latent_frames += 1
    return latent_frames


def cropped_share(width: int, height: int, new_width: int, new_height: int) -> tuple[float, float]:
    """(of the width, of the height) what share is cut off when a picture covers another size."""
    scale = max(new_width / width, new_height / height)
    return 1 - new_width / (width * scale), 1 - new_height / (height * scale)
