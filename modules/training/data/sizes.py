"""Sizes and lengths that samples are trained at: a size of one's own, aspect buckets, CogVideoX-Fun's token budget."""

from math import isqrt, lcm

from ...conditioning.sizes import Fits, bucket_size, frames_below
from ...grid import LatentGrid
from ..draws import uniform
from ..recipe import Data
from .clips import draw, pick

# pixels between the sizes of a budget
STEP = 128
# a clip is trained at sizes below so many times the mean of its sides
LARGEST = 1.25
# how often a picture keeps its full size
WHOLE = 0.75
# by what a picture's side is divided otherwise, from a base on
RATIOS = ((1536, (1.25, 1.5, 2, 2.5, 3)), (1024, (1.25, 1.5, 2)), (768, (1.25, 1.5)), (0, ()))


def base_of(data: Data) -> int:
    """Side of the square of the same area, to the nearest pixel."""
    area = data.width * data.height
    root = isqrt(area)
    return root + (area - root * root > root)


def budget_bases(least: int, most: int) -> list[int]:
    """Sides from that of clips to that of pictures."""
    bases = [*range(least, most + 1, STEP)] or [least]
    return bases if bases[-1] >= most else [*bases, most]


def base_choices(bases: list[int], width: int, height: int) -> list[int]:
    """Those that suit a file's own size; the smallest where it is too small for all, which Fun trains at any."""
    return [base for base in bases if base < LARGEST * (width + height) / 2] or bases[:1]


def budget_frames(grid: LatentGrid, num_frames: int, token_size: int, base: int, fits: Fits) -> int:
    """Frames at a base size that take no more tokens than `num_frames` at `token_size`, as the network folds them.

    Fun's own code goes up to the next fold and over its budget: 13 frames at 1024 of 49 at 512, where 9 fit.
    """
    return frames_below(grid, min(num_frames * token_size**2 // base**2, num_frames), fits)


def image_base(data: Data, index: int, variant: int, seed: int) -> int:
    """Side of a picture beside clips: the full one, or divided by one of the ratios, all of these alike."""
    full = data.image_size
    divisors = next(ratios for least, ratios in RATIOS if full >= least)
    ratios = [1.0, *divisors, full / base_of(data)]
    others = (1 - WHOLE) / (len(ratios) - 1)
    bases = [int(full / ratio) for ratio in ratios]
    weights = [WHOLE] + [others] * (len(ratios) - 1)
    return pick(bases, weights, uniform("image_size", index, variant, seed))


def choose_base(
    data: Data, picture: bool, width: int, height: int, index: int, variant: int, seed: int
) -> int:
    """Side of a sample's square of the same area, for a file of a size."""
    base = base_of(data)
    if picture and data.image_size:
        return image_base(data, index, variant, seed) if data.token_size else data.image_size
    if not data.token_size:
        return base
    choices = base_choices(budget_bases(base, data.image_size or base), width, height)
    return draw(choices, "size", index, variant, seed)


def size_at(data: Data, grid: LatentGrid, base: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) at a base: of the bucket nearest to a file's aspect, or of the configuration's own aspect."""
    multiple = lcm(16, grid.multiple_hw)
    if data.buckets:
        return bucket_size(width, height, base, multiple)
    own = base_of(data)
    if base == own:
        return data.width, data.height
    across, down = (side * base // own // multiple * multiple for side in (data.width, data.height))
    return max(across, multiple), max(down, multiple)


def repeats(num_frames: int, width: int, height: int, data: Data) -> int:
    """How often a short sample goes through the network side by side, with other noise, in one of full length's place."""
    if not data.token_size:
        return 1
    volume, full = num_frames * height * width, data.frames * data.token_size**2
    return 4 if 16 * volume <= full else 2 if 4 * volume <= full else 1
