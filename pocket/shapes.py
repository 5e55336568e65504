"""A seeded world of one coloured shape on a dark ground that moves one way, with its caption."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

SIZE = 64  # pixels, both axes
FRAMES = 17

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.12, 0.80, 0.20),
    "blue": (0.15, 0.30, 1.00),
    "yellow": (0.95, 0.88, 0.10),
    "purple": (0.85, 0.20, 0.90),
    "white": (0.95, 0.95, 0.95),
}
SHAPES = ("circle", "square", "triangle")
MOTIONS: dict[str, tuple[int, int]] = {  # unit steps along x and y; y points down
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
    "standing still": (0, 0),
}
GROUND = (0.08, 0.09, 0.12)

RADIUS = (11.0, 12.0)  # pixels
PATH = (21.0, 23.0)  # pixels from the first frame to the last
STRAY = 2.0  # pixels by which the middle of the path may miss the middle of the frame


@dataclass(frozen=True)
class ShapeClip:
    """One clip, before drawing. Lengths in pixels."""

    colour: str
    shape: str
    motion: str
    radius: float
    path: float
    middle: tuple[float, float]  # x, y of the path's middle

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} {self.motion}"

    def centres(self, frames: int = FRAMES) -> Tensor:
        """Where the shape is in each frame: (f, 2), x then y."""
        along = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
        step = torch.tensor(MOTIONS[self.motion], dtype=torch.float32)
        return torch.tensor(self.middle) + along[:, None] * self.path * step


def all_subjects() -> list[tuple[str, str, str]]:
    """Every (colour, shape, motion), 90 in a fixed order."""
    return list(product(COLOURS, SHAPES, MOTIONS))


def sample_clip(seed: int, subject: tuple[str, str, str] | None = None) -> ShapeClip:
    """The clip of a seed; `subject` fixes what it shows and leaves size and path to the seed."""
    dice = random.Random(seed)
    chosen = dice.choice(all_subjects())
    colour, shape, motion = subject or chosen
    middle = (SIZE / 2 + dice.uniform(-STRAY, STRAY), SIZE / 2 + dice.uniform(-STRAY, STRAY))
    return ShapeClip(colour, shape, motion, dice.uniform(*RADIUS), dice.uniform(*PATH), middle)


def outline_distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Pixels from the outline, negative inside; x and y from the shape's centre.

    The three silhouettes have about the same area, so that only the outline tells them apart.
    """
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.9 * radius
    inner = 0.65 * radius  # inscribed circle of an equilateral triangle that points up
    slope = math.sqrt(3) / 2
    return torch.maximum(y - inner, slope * x.abs() - 0.5 * y - inner)


def draw_mask(clip: ShapeClip, frames: int = FRAMES, size: int = SIZE) -> Tensor:
    """How much of each pixel the shape covers: (f, h, w) in 0..1, edges smoothed over one pixel."""
    centres = clip.centres(frames)
    at = torch.arange(size) + 0.5
    x = at[None, None, :] - centres[:, 0, None, None]
    y = at[None, :, None] - centres[:, 1, None, None]
    distance = outline_distance(clip.shape, x, y, torch.tensor(clip.radius))
    return (0.5 - distance).clamp(0, 1)


def draw(clip: ShapeClip, frames: int = FRAMES, size: int = SIZE) -> Tensor:
    """The clip's pixels: (f, h, w, 3) in 0..1."""
    cover = draw_mask(clip, frames, size)[..., None]
    ground, colour = torch.tensor(GROUND), torch.tensor(COLOURS[clip.colour])
    return ground + cover * (colour - ground)


def draw_batch(clips: Sequence[ShapeClip], frames: int = FRAMES) -> Tensor:
    """Clips as a VAE takes them: (b, 3, f, h, w) in -1..1."""
    return torch.stack([draw(clip, frames) for clip in clips]).permute(0, 4, 1, 2, 3) * 2 - 1
