"""Frames at the size of a training: cover, antialiased bicubic, crop."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def cover(width: int, height: int, new_width: int, new_height: int) -> tuple[int, int]:
    """(width, height) of a picture that just covers another size, its aspect kept; the longer side rounded down."""
    if new_height * width > new_width * height:
        return width * new_height // height, new_height
    return new_width, height * new_width // width


def fit_frames(
    frames: Iterable[Tensor], count: int, width: int, height: int, across: float = 0.5, down: float = 0.5
) -> Tensor:
    """`count` frames (h, w, 3) uint8 as (f, height, width, 3) in 0..1: covered, and cut at a place of 0..1.

    One after the other, so that a clip of large frames is never held. The cover is that of their own size:
    CogVideoX-Fun and EasyAnimate take that of a batch's first clip for all, and so squeeze the others.
    """
    fitted = torch.empty(count, height, width, 3)
    for place, frame_hwc in zip(fitted, frames, strict=True):
        have_h, have_w = frame_hwc.shape[:2]
        new_w, new_h = cover(have_w, have_h, width, height)
        left, top = round((new_w - width) * across), round((new_h - height) * down)
        # colour by colour, which is resized a third faster than pixel by pixel
        frame_chw = frame_hwc.movedim(-1, 0).contiguous().float() / 255
        if (new_h, new_w) != (have_h, have_w):
            size = new_h, new_w
            frame_chw = F.interpolate(frame_chw[None], size=size, mode="bicubic", antialias=True)[0].clamp(
                0, 1
            )
        place.copy_(frame_chw[:, top : top + height, left : left + width].movedim(0, -1))
    return fitted


def flip(frames_fhwc: Tensor) -> Tensor:
    """Left and right exchanged."""
    return frames_fhwc.flip(2)
