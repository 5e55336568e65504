"""A seeded world of one shape that starts off-centre and moves through the middle, at a speed asked for.

The picture tells the direction, `motion_bucket_id` the speed; `fps` tells nothing. So the clip that belongs to a
picture and its micro-conditioning is known.
"""

import random
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ..shapes import COLOURS, MOTIONS, SHAPES, draw

SIZE = 128  # pixels, both axes; ExVideo's reflecting convolutions need no less
FRAMES = 8
LONG_FRAMES = 32  # of ExVideo clips: four times the base length

RADIUS = (16.0, 19.0)  # pixels
START = (27.0, 31.0)  # pixels from the edge where the shape starts to its centre
STRAY = 4.0  # pixels by which the path may miss the middle of the frame sideways
TOP_SPEED = 2.2  # pixels a frame, at the highest bucket
BUCKETS = 255.0
FPS = (4, 30)
MOST_AUGMENTATION = 0.3

Subject = tuple[str, str, str]  # colour, shape, motion


@dataclass(frozen=True)
class SlidingClip:
    """One clip, before drawing. Lengths in pixels."""

    colour: str
    shape: str
    motion: str
    radius: float
    start: tuple[float, float]  # x, y of the centre in the first frame
    bucket: float
    fps: int
    augmentation: float

    @property
    def speed(self) -> float:
        """Pixels a frame."""
        return TOP_SPEED * self.bucket / BUCKETS

    @property
    def direction(self) -> Tensor:
        """Unit step along x and y."""
        return torch.tensor(MOTIONS[self.motion], dtype=torch.float32)

    @property
    def conditions(self) -> tuple[float, float, float]:
        """What the UNet is told: fps_id, motion_bucket_id, noise_aug_strength."""
        return self.fps - 1.0, self.bucket, self.augmentation

    def centres(self, frames: int) -> Tensor:
        """Where the shape is in each frame: (f, 2), x then y."""
        return torch.tensor(self.start) + torch.arange(frames)[:, None] * self.speed * self.direction


def all_subjects() -> list[Subject]:
    """Every (colour, shape, motion) that moves, 72 in a fixed order."""
    moving = [name for name in MOTIONS if name != "standing still"]
    return list(product(COLOURS, SHAPES, moving))


def start_of(motion: str, dice: random.Random) -> tuple[float, float]:
    """A place from which the motion leads through the middle."""
    aside = dice.uniform(-STRAY, STRAY)
    room = SIZE / 2 - dice.uniform(*START)
    x, y = MOTIONS[motion]
    return SIZE / 2 - x * room + abs(y) * aside, SIZE / 2 - y * room + abs(x) * aside


def sample_clip(seed: int, subject: Subject | None = None, bucket: float | None = None) -> SlidingClip:
    """The clip of a seed; `subject` and `bucket` fix what they name and leave all else to the seed."""
    dice = random.Random(seed)
    chosen, speed = dice.choice(all_subjects()), float(dice.randint(0, int(BUCKETS)))
    colour, shape, motion = subject or chosen
    start, radius = start_of(motion, dice), dice.uniform(*RADIUS)
    fps = dice.randint(*FPS)
    noisy = dice.random() < 0.5
    augmentation = dice.uniform(0, MOST_AUGMENTATION) if noisy else 0.0
    return SlidingClip(
        colour, shape, motion, radius, start, speed if bucket is None else bucket, fps, augmentation
    )


def still_clip(seed: int) -> SlidingClip:
    """A shape anywhere in the frame that stays where it is, told so by bucket 0."""
    clip, dice = sample_clip(seed, bucket=0.0), random.Random(seed)
    room = SIZE / 2 - 1.3 * clip.radius - 1  # a triangle's top is 1.3 radii from its centre
    start = (SIZE / 2 + dice.uniform(-room, room), SIZE / 2 + dice.uniform(-room, room))
    return SlidingClip(
        clip.colour, clip.shape, clip.motion, clip.radius, start, 0.0, clip.fps, clip.augmentation
    )


def draw_frames(clip: SlidingClip, frames: int = FRAMES) -> Tensor:
    """Pixels as a VAE takes them: (f, 3, h, w) in -1..1."""
    return draw(clip, frames, SIZE).permute(0, 3, 1, 2) * 2 - 1
