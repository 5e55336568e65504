"""Camera movements laid over clips, for MotionLoRA.

AnimateDiff (arXiv 2307.04725, sec. 4.3) says that crops are moved, grown and shrunk, and gives no numbers: those are
ours. Names as the published files have them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil, cos, pi, radians, sin

import torch
import torch.nn.functional as F
from torch import Tensor

# of a side that the camera moves by, over the clip: at 16 frames 1.7 % a frame
SHARE = 0.25
# degrees to each side
ANGLE = 30.0


@dataclass(frozen=True)
class Rectangle:
    """What the camera sees of a picture, in pixels of the picture; `angle` in degrees, clockwise."""

    y: float
    x: float
    height: float
    width: float
    angle: float = 0.0


# (how far the clip is, 0..1; height and width of the picture)
Path = Callable[[float, float, float], Rectangle]


def _centred(scale: float, height: float, width: float, angle: float = 0.0) -> Rectangle:
    inner_h, inner_w = scale * height, scale * width
    return Rectangle((height - inner_h) / 2, (width - inner_w) / 2, inner_h, inner_w, angle)


def _zoom(u: float, height: float, width: float) -> Rectangle:
    return _centred(1 - SHARE * u, height, width)


def _pan(u: float, height: float, width: float) -> Rectangle:
    return Rectangle(SHARE / 2 * height, u * SHARE * width, (1 - SHARE) * height, (1 - SHARE) * width)


def _tilt(u: float, height: float, width: float) -> Rectangle:
    return Rectangle(u * SHARE * height, SHARE / 2 * width, (1 - SHARE) * height, (1 - SHARE) * width)


def _roll(u: float, height: float, width: float) -> Rectangle:
    """Upright or turned, the largest rectangle of the picture's aspect that fits at the widest angle."""
    c, s = cos(radians(ANGLE)), sin(radians(ANGLE))
    scale = min(height / (height * c + width * s), width / (width * c + height * s))
    return _centred(scale, height, width, ANGLE * (2 * u - 1))


def _reversed(path: Path, u: float, height: float, width: float) -> Rectangle:
    return path(1 - u, height, width)


MOVEMENTS: Mapping[str, Path] = {
    "zoom_in": _zoom,
    "zoom_out": partial(_reversed, _zoom),
    "pan_right": _pan,
    "pan_left": partial(_reversed, _pan),
    "tilt_down": _tilt,
    "tilt_up": partial(_reversed, _tilt),
    "roll_clockwise": _roll,
    "roll_anticlockwise": partial(_reversed, _roll),
}


def rectangles(movement: str, num_frames: int, height: float, width: float) -> list[Rectangle]:
    """What the camera sees in each frame; ValueError for a movement that is none."""
    if movement not in MOVEMENTS:
        raise ValueError(f"camera must be one of {', '.join(MOVEMENTS)}, or empty: got {movement!r}.")
    last = max(1, num_frames - 1)
    return [MOVEMENTS[movement](index / last, height, width) for index in range(num_frames)]


def canvas(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a picture in which the closest view has about the pixels of the clip."""
    return ceil(width / (1 - SHARE)), ceil(height / (1 - SHARE))


def move_camera(frames_fhwc: Tensor, movement: str, width: int, height: int) -> Tensor:
    """(f, height, width, 3) as a moving camera sees them: bilinear between pixels, so that slow movements are smooth."""
    have_h, have_w = frames_fhwc.shape[1:3]
    seen = []
    for frame_hwc, rectangle in zip(
        frames_fhwc, rectangles(movement, len(frames_fhwc), have_h, have_w), strict=True
    ):
        grid_1hw2 = _grid(rectangle, width, height, have_w, have_h)
        frame_1chw = frame_hwc.movedim(-1, 0)[None]
        moved = F.grid_sample(
            frame_1chw, grid_1hw2, mode="bilinear", padding_mode="border", align_corners=False
        )
        seen.append(moved[0].movedim(0, -1))
    return torch.stack(seen)


def _grid(rectangle: Rectangle, width: int, height: int, have_w: int, have_h: int) -> Tensor:
    """Where each pixel's middle lies, as (1, height, width, 2) of grid_sample: -1..1 from edge to edge."""
    across = ((torch.arange(width) + 0.5) / width - 0.5) * rectangle.width
    down = ((torch.arange(height) + 0.5) / height - 0.5) * rectangle.height
    down_hw, across_hw = torch.meshgrid(down, across, indexing="ij")
    c, s = cos(rectangle.angle * pi / 180), sin(rectangle.angle * pi / 180)
    # y grows downwards: this turns clockwise
    x = rectangle.x + rectangle.width / 2 + c * across_hw - s * down_hw
    y = rectangle.y + rectangle.height / 2 + s * across_hw + c * down_hw
    return torch.stack([2 * x / have_w - 1, 2 * y / have_h - 1], dim=-1)[None]
