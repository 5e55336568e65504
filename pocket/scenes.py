"""Clips to paint into: a shape that goes its way or turns, and what of the clip is known."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .shapes import COLOURS, FRAMES, GROUND, MOTIONS, RADIUS, SHAPES, SIZE, all_subjects, outline_distance

# pixels a frame of a shape that moves; between two given pictures it may be slower
SPEED = (21.0 / (FRAMES - 1), 23.0 / (FRAMES - 1))
SLOWEST = 5.0 / (FRAMES - 1)
# what is known of a clip, and how often
KINDS = {"nothing": 0.15, "first": 0.15, "some": 0.25, "ends": 0.15, "some_and_end": 0.1, "around": 0.2}
# part of the captions of clips to follow that name another shape and motion, so that only colour is learned from them
MISNAMED = 0.5


@dataclass(frozen=True)
class Scene:
    """One clip, before drawing. Lengths in pixels, `start` is the shape's centre in frame 0, x then y."""

    colour: str
    shape: str
    motion: str
    radius: float
    # of a frame
    speed: float
    start: tuple[float, float]
    # it goes on with the motion of an earlier clip in the first frames, as many as `turn`
    before: str = "standing still"
    before_speed: float = 0.0
    turn: int = 0

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} {self.motion}"

    def centres(self, frames: int = FRAMES) -> Tensor:
        """Where the shape is in each frame: (f, 2), x then y."""
        return torch.tensor(self.start) + self.way(frames)

    def way(self, frames: int = FRAMES) -> Tensor:
        """How far it has gone from frame 0: (f, 2)."""
        steps = [(0.0, 0.0)] + [self._step(frame) for frame in range(1, frames)]
        return torch.tensor(steps).cumsum(0)

    def _step(self, frame: int) -> tuple[float, float]:
        motion, speed = (self.before, self.before_speed) if frame < self.turn else (self.motion, self.speed)
        x, y = MOTIONS[motion]
        return x * speed, y * speed


@dataclass(frozen=True)
class Known:
    """What is known of a clip: frames at both ends, and all outside a box (x0, y0, x1, y1) in pixels."""

    start: int = 0
    end: int = 0
    box: tuple[int, int, int, int] = (0, 0, SIZE, SIZE)

    @property
    def is_nothing(self) -> bool:
        return self == Known()

    def mask(self, frames: int = FRAMES) -> Tensor:
        """(f, h, w), 1 where the clip is to be painted."""
        x0, y0, x1, y1 = self.box
        mask = torch.zeros(frames, SIZE, SIZE)
        mask[:, y0:y1, x0:x1] = 1
        mask[: self.start] = 0
        mask[frames - self.end :] = 0
        return mask


def place(scene: Scene, dice: random.Random) -> Scene:
    """The scene with its whole way somewhere inside the frame."""
    way, start = scene.way(), []
    # a triangle's top is 1.3 radii from its centre
    margin = 1.3 * scene.radius + 1
    for axis in range(2):
        low = margin - float(way[:, axis].min())
        high = SIZE - margin - float(way[:, axis].max())
        start.append(dice.uniform(low, high) if low < high else (low + high) / 2)
    return Scene(**{**vars(scene), "start": tuple(start)})


def draw_known(kind: str, dice: random.Random) -> Known:
    """What is known in a clip of a kind."""
    if kind == "around":
        wide, high = dice.randint(28, 56), dice.randint(28, 56)
        x0, y0 = dice.randint(0, SIZE - wide), dice.randint(0, SIZE - high)
        return Known(box=(x0, y0, x0 + wide, y0 + high))
    some = dice.choice((2, 3, 4, 4, 4, 4, 5))
    start = {"nothing": 0, "first": 1, "ends": 1}.get(kind, some)
    return Known(start, int(kind in ("ends", "some_and_end")))


def draw_scene(seed: int) -> tuple[Scene, Known]:
    """The scene of a seed and what is known of it."""
    dice = random.Random(seed)
    (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
    known = draw_known(kind, dice)
    colour, shape, motion = dice.choice(all_subjects())
    least = SLOWEST if known.end else SPEED[0]
    turns = known.start > 1
    scene = Scene(
        colour, shape, motion, dice.uniform(*RADIUS), dice.uniform(least, SPEED[1]), (0.0, 0.0),
        before=dice.choice(list(MOTIONS)) if turns else motion, before_speed=dice.uniform(*SPEED),
        turn=known.start if turns else 0,
    )  # fmt: skip
    return place(scene, dice), known


def misnamed_scene(seed: int) -> Scene:
    """What the caption of a clip to follow tells: of some clips another shape and motion."""
    scene, dice = draw_scene(seed)[0], random.Random(-seed)
    if dice.random() >= MISNAMED:
        return scene
    return replace(scene, shape=dice.choice(SHAPES), motion=dice.choice(list(MOTIONS)))


def cover_scenes(scenes: Sequence[Scene]) -> Tensor:
    """How much of each pixel the scenes' shapes cover: (n, f, h, w) in 0..1, edges smoothed over one pixel."""
    centres_nf2 = torch.stack([scene.centres() for scene in scenes])
    radius_n111 = torch.tensor([scene.radius for scene in scenes]).view(-1, 1, 1, 1)
    at = torch.arange(SIZE) + 0.5
    x = at[None, None, None, :] - centres_nf2[..., 0, None, None]
    y = at[None, None, :, None] - centres_nf2[..., 1, None, None]
    cover = torch.empty(len(scenes), centres_nf2.shape[1], SIZE, SIZE)
    for shape in SHAPES:
        rows = torch.tensor([scene.shape == shape for scene in scenes])
        if rows.any():
            distance = outline_distance(shape, x[rows], y[rows], radius_n111[rows])
            cover[rows] = (0.5 - distance).clamp(0, 1)
    return cover


def draw_scenes(scenes: Sequence[Scene]) -> Tensor:
    """The scenes' pixels: (n, f, h, w, 3) in 0..1."""
    ground = torch.tensor(GROUND)
    colours = torch.tensor([COLOURS[scene.colour] for scene in scenes])
    return ground + cover_scenes(scenes)[..., None] * (colours - ground)[:, None, None, None]


def draw_silhouettes(scenes: Sequence[Scene]) -> Tensor:
    """The scenes' shapes in white on black, to follow: (n, f, h, w, 3) in 0..1."""
    return cover_scenes(scenes)[..., None].expand(-1, -1, -1, -1, 3)
