"""Masks of CogVideoX-Fun's inpaint stage: what of a clip is made anew, 1, and what is known, 0.

aigc-apps/CogVideoX-Fun, `get_random_mask`. There a mask is drawn over 49 frames and then cut with its clip, which can
leave nothing to make; here it is drawn for the clip as it is, and anew where it masks nothing.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..draws import generator
from .clips import pick

# so many uniform numbers in 0..1
Uniforms = Callable[[int], Tensor]


class Dice:
    """Uniform numbers as whole ones and choices."""

    def __init__(self, uniforms: Uniforms):
        self.uniforms = uniforms

    def whole(self, low: int, high: int) -> int:
        """One of low to high - 1; low where there is none."""
        return low + int(self.uniforms(1).item() * max(0, high - low))

    def coins(self, *shape: int) -> Tensor:
        """0 or 1, each as likely."""
        return (2 * self.uniforms(torch.Size(shape).numel())).long().reshape(shape).float()

    def some(self, count: int, total: int) -> Tensor:
        """`count` different numbers below `total`."""
        return self.uniforms(total).argsort()[:count]


Draw = Callable[[Tensor, Dice], None]


def draw_mask(num_frames: int, height: int, width: int, uniforms: Uniforms) -> Tensor:
    """(f, height, width) of 0 and 1, some of it 1; the first number chooses the kind."""
    kinds = CLIP_KINDS if num_frames > 1 else PICTURE_KINDS
    while True:
        mask_fhw = torch.zeros(num_frames, height, width)
        pick([*kinds], [*kinds.values()], uniforms(1).item())(mask_fhw, Dice(uniforms))
        if mask_fhw.any():
            return mask_fhw


def item_mask(num_frames: int, height: int, width: int, index: int, variant: int, seed: int) -> Tensor:
    """The mask of one cut of an item."""
    source = generator("mask", index, variant, seed)
    return draw_mask(
        num_frames, height, width, lambda count: torch.rand(count, generator=source, dtype=torch.float64)
    )


def _box(mask_fhw: Tensor, dice: Dice) -> None:
    rows, columns = _window(mask_fhw, dice)
    mask_fhw[:, rows, columns] = 1


def _window(mask_fhw: Tensor, dice: Dice) -> tuple[slice, slice]:
    """Rows and columns of a box anywhere, a quarter to three of each side, cut off at the edges."""
    height, width = mask_fhw.shape[1:]
    across, down = dice.whole(0, width), dice.whole(0, height)
    half_w = dice.whole(width // 4, width // 4 * 3) // 2
    half_h = dice.whole(height // 4, height // 4 * 3) // 2
    return slice(max(0, down - half_h), down + half_h), slice(max(0, across - half_w), across + half_w)


def _all(mask_fhw: Tensor, dice: Dice) -> None:
    mask_fhw[:] = 1


def _start_known(mask_fhw: Tensor, dice: Dice) -> None:
    mask_fhw[dice.whole(1, 5) :] = 1


def _ends_known(mask_fhw: Tensor, dice: Dice) -> None:
    known = dice.whole(1, 5)
    mask_fhw[known:-known] = 1


def _box_in_time(mask_fhw: Tensor, dice: Dice) -> None:
    rows, columns = _window(mask_fhw, dice)
    frames = len(mask_fhw)
    start = dice.whole(0, frames // 2)
    mask_fhw[start : dice.whole(frames // 2, frames), rows, columns] = 1


def _noise(mask_fhw: Tensor, dice: Dice) -> None:
    mask_fhw[:] = dice.coins(*mask_fhw.shape)


def _box_a_frame(mask_fhw: Tensor, dice: Dice) -> None:
    frames, height, width = mask_fhw.shape
    for frame in dice.some(dice.whole(1, frames // 2 + 1), frames).tolist():
        down, across = dice.whole(1, height // 4 + 1), dice.whole(1, width // 4 + 1)
        top, left = dice.whole(0, height - down + 1), dice.whole(0, width - across + 1)
        mask_fhw[frame, top : top + down, left : left + across] = 1


def _ellipse(mask_fhw: Tensor, dice: Dice) -> None:
    across, down, least, most = _middle(mask_fhw, dice)
    _fill_ellipse(mask_fhw, across, down, dice.whole(least, most), dice.whole(least, most))


def _circle(mask_fhw: Tensor, dice: Dice) -> None:
    across, down, least, most = _middle(mask_fhw, dice)
    radius = dice.whole(least, most)
    _fill_ellipse(mask_fhw, across, down, radius, radius)


def _middle(mask_fhw: Tensor, dice: Dice) -> tuple[int, int, int, int]:
    height, width = mask_fhw.shape[1:]
    side = min(height, width)
    return dice.whole(0, width), dice.whole(0, height), side // 8, side // 4


def _fill_ellipse(mask_fhw: Tensor, across: int, down: int, half_w: int, half_h: int) -> None:
    height, width = mask_fhw.shape[1:]
    x = (torch.arange(width) - across) / half_w
    y = (torch.arange(height) - down) / half_h
    mask_fhw[:, x[None, :] ** 2 + y[:, None] ** 2 < 1] = 1


def _frames(mask_fhw: Tensor, dice: Dice) -> None:
    mask_fhw[:] = dice.coins(len(mask_fhw), 1, 1)


CLIP_KINDS: Mapping[Draw, float] = {
    _box: 0.05,
    _all: 0.2,
    _start_known: 0.2,
    _ends_known: 0.2,
    _box_in_time: 0.05,
    _noise: 0.05,
    _box_a_frame: 0.05,
    _ellipse: 0.1,
    _circle: 0.05,
    _frames: 0.05,
}
PICTURE_KINDS: Mapping[Draw, float] = {_box: 0.2, _all: 0.8}
