"""Small shapes that cross the frame, and photos of them: most show the shape as it is about to move.

A motion module hears of the prompt only through the base's features, so the base must have a use for the motion
words: of "moving left" it mostly sees shapes that still have their way to the left before them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from ..shapes import COLOURS, MOTIONS, SHAPES, SIZE, ShapeClip, draw
from ..svd.latents import latents_of

FRAMES = 16
RADIUS = (9.0, 10.0)  # pixels
PATH = (23.0, 25.0)  # pixels from the first frame to the last
MARGIN = 14.5  # pixels that a shape's centre keeps from the edge: a triangle's top is 1.3 radii away
STILL = "standing still"
WORDLESS = 0.2  # part of the captions that say nothing about motion; their shapes stand still
EARLY = 3.0  # a photo is taken at u ** EARLY of the clip, u even in 0..1

Subject = tuple[str, str, str]


@dataclass(frozen=True)
class Captioned:
    """A clip and the words that it is shown with."""

    clip: ShapeClip
    caption: str


def all_subjects() -> list[Subject]:
    """Every (colour, shape, motion), 90 in a fixed order."""
    return list(product(COLOURS, SHAPES, MOTIONS))


def sample_clip(seed: int, subject: Subject | None = None) -> ShapeClip:
    """The clip of a seed, anywhere in the frame; `subject` fixes what it shows."""
    dice = random.Random(seed)
    chosen = dice.choice(all_subjects())
    colour, shape, motion = subject or chosen
    path = dice.uniform(*PATH)
    halves = [SIZE / 2 - MARGIN - path / 2 * abs(step) for step in MOTIONS[motion]]
    x, y = (SIZE / 2 + dice.uniform(-half, half) for half in halves)
    return ShapeClip(colour, shape, motion, dice.uniform(*RADIUS), path, (x, y))


def wordless(clip: ShapeClip) -> str:
    """A caption that says nothing about motion."""
    return f"a {clip.colour} {clip.shape}"


def captioned(seed: int, subject: Subject | None = None) -> Captioned:
    """The clip of a seed with its caption; some of those that stand still have no word about it."""
    clip, dice = sample_clip(seed, subject), random.Random(f"words {seed}")
    if dice.random() < WORDLESS:
        clip = sample_clip(seed, (clip.colour, clip.shape, STILL))
        return Captioned(clip, wordless(clip))
    return Captioned(clip, clip.caption)


def photo(seed: int) -> Captioned:
    """One moment of the clip of a seed, mostly an early one, as a clip that stands there."""
    shown, dice = captioned(seed), random.Random(f"photo {seed}")
    clip, time = shown.clip, dice.random() ** EARLY
    x, y = (
        m + (time - 0.5) * clip.path * step for m, step in zip(clip.middle, MOTIONS[clip.motion], strict=True)
    )
    return Captioned(replace(clip, motion=STILL, middle=(x, y)), shown.caption)


def pan_clip(seed: int, motion: str) -> Captioned:
    """A clip that moves one way though its caption says nothing about motion, or that the shape stands still."""
    dice = random.Random(f"pan {seed}")
    chosen = sample_clip(seed)
    clip = sample_clip(seed, (chosen.colour, chosen.shape, motion))
    said = dice.choice((wordless(clip), f"{wordless(clip)} {STILL}"))
    return Captioned(clip, said)


def draw_frames(clip: ShapeClip, frames: int = FRAMES) -> Tensor:
    """Pixels as an autoencoder takes them: (f, 3, h, w) in -1..1."""
    return draw(clip, frames).permute(0, 3, 1, 2) * 2 - 1


def draw_latents(clips: Sequence[ShapeClip], frames: int = FRAMES) -> Tensor:
    """Scaled latents (b, f, 4, 8, 8), by the fixed map that the autoencoder learns."""
    # pixels lie channels last, and so would latents: torch's gradients through a mix of both have crashed
    return torch.stack([latents_of(draw_frames(clip, frames)).contiguous() for clip in clips])
