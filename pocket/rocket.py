"""A rocket at dusk, drawn: what the workflows of the published models start from."""

import math
import random
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

WIDTH, HEIGHT = 1024, 576
# a picture is drawn larger and made smaller: smooth edges
OVER = 2
# of its middle at rest and at the end of its way, in pixels of the picture
GROUND, SKY = 382.0, 130.0
DUSK = ((24, 28, 66), (120, 72, 120), (244, 150, 96))
NEAR_HILLS, FAR_HILLS, MEADOW = (38, 34, 62), (86, 62, 104), (22, 26, 40)
MOON, FIRELIGHT = (246, 236, 214), (255, 196, 120)

# from the middle of Pillow's gradient to where its circle touches the sides
FALLING = [max(0, 255 - far * 255 // 180) // 2 for far in range(256)]

Colour = tuple[int, int, int]


class Canvas:
    """A picture that is drawn on in the pixels of a smaller one."""

    def __init__(self, image: Image.Image, over: int):
        self.image, self._over = image, over
        self._pen = ImageDraw.Draw(image)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self._pen.ellipse(self._scaled(left, top, right, bottom), fill=fill)

    def shape(self, points: Iterable[tuple[float, float]], fill: Colour) -> None:
        self._pen.polygon(self._scaled(*(number for point in points for number in point)), fill=fill)

    def shine(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Soft light around a place: half of it at most, nothing beyond the radius."""
        side = 2 * round(radius * self._over)
        light = Image.radial_gradient("L").resize((side, side)).point(FALLING)
        left, top = (round(number * self._over - side / 2) for number in (x, y))
        self.image.paste(Image.new("RGB", light.size, colour), (left, top), light)

    def _scaled(self, *numbers: float) -> list[float]:
        return [number * self._over for number in numbers]


def picture(climb: float, over: int = OVER) -> Tensor:
    """(576, 1024, 3) in 0..1; `climb` 0 stands on the meadow, 1 is high above it."""
    canvas = Canvas(_evening(over).copy(), over)
    x, y = WIDTH / 2, GROUND + climb * (SKY - GROUND)
    canvas.shine(x, y + 140, 260, FIRELIGHT)
    _smoke(canvas, climb)
    _rocket(canvas, x, y)
    small = canvas.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).float() / 255


@cache
def _evening(over: int) -> Image.Image:
    """All but the rocket."""
    canvas = Canvas(Image.fromarray(_sky(WIDTH * over, HEIGHT * over)), over)
    _stars(canvas)
    canvas.shape(_crescent(840, 95, 35), MOON)
    _hills(canvas, 400, 42, 310, FAR_HILLS)
    _hills(canvas, 450, 30, 190, NEAR_HILLS)
    canvas.shape([(0, 500), (WIDTH, 500), (WIDTH, HEIGHT), (0, HEIGHT)], MEADOW)
    return canvas.image


def clip(frames: int, width: int, height: int) -> Tensor:
    """(f, height, width, 3) in 0..1: it rises, quicker and quicker; the picture, cut to the middle and made smaller."""
    share = np.linspace(0, 1, frames) ** 1.6
    return torch.stack([_cut(picture(float(s), over=1), width, height) for s in share])


def edges(clip_fhwc: Tensor) -> Tensor:
    """White lines on black where a colour jumps, of the same size."""
    down = F.pad(clip_fhwc.diff(dim=1).abs().amax(-1), (0, 0, 0, 1))
    right = F.pad(clip_fhwc.diff(dim=2).abs().amax(-1), (0, 1))
    return ((down + right) > 0.2).float()[..., None].expand_as(clip_fhwc)


def way(frames: int, width: int, height: int) -> Tensor:
    """White where the rocket flies, with its fire: one box for all frames."""
    mask = torch.zeros(frames, height, width, 3)
    half = round(width * 0.14)
    mask[:, : round(height * 0.9), width // 2 - half : width // 2 + half] = 1
    return mask


def _cut(picture_hwc: Tensor, width: int, height: int) -> Tensor:
    wide = round(HEIGHT * width / height)
    left = (WIDTH - wide) // 2
    whole = Image.fromarray((picture_hwc[:, left : left + wide] * 255).round().byte().numpy())
    return torch.from_numpy(np.array(whole.resize((width, height), Image.Resampling.LANCZOS))).float() / 255


def _sky(width: int, height: int) -> np.ndarray:
    """(height, width, 3): three colours from top to bottom."""
    rows = np.linspace(0, 1, height)
    bands = [np.interp(rows, (0, 0.5, 0.8), channel) for channel in zip(*DUSK, strict=True)]
    return np.broadcast_to(np.stack(bands, -1)[:, None], (height, width, 3)).astype(np.uint8).copy()


def _crescent(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Half a circle and half an ellipse, open to the upper left."""
    turns = np.linspace(-3 * math.pi / 4, math.pi / 4, 40).tolist()
    outer = [(math.cos(turn), math.sin(turn)) for turn in turns]
    # the same points, nearer to the line that joins the two ends
    inner = [(a + 0.7 * (b - a) / 2, b + 0.7 * (a - b) / 2) for a, b in reversed(outer)]
    return [(x + radius * a, y + radius * b) for a, b in (*outer, *inner)]


def _stars(canvas: Canvas) -> None:
    dice = random.Random(4)
    for _ in range(70):
        x, y, r = dice.uniform(0, WIDTH), dice.uniform(0, 230), dice.uniform(0.6, 1.6)
        canvas.oval(x - r, y - r, x + r, y + r, (235, 230, 240))


def _hills(canvas: Canvas, top: float, rise: float, period: float, colour: Colour) -> None:
    """A row of them, from side to side."""
    xs = range(0, WIDTH + 8, 8)
    line = [(x, top - rise * (math.sin(x / period * 2 + top) + 0.4 * math.sin(x / period * 5))) for x in xs]
    canvas.shape([*line, (WIDTH, HEIGHT), (0, HEIGHT)], colour)


def _smoke(canvas: Canvas, climb: float) -> None:
    dice = random.Random(7)
    spread = 40 + 190 * min(1.0, 0.35 + climb)
    for _ in range(26):
        x = WIDTH / 2 + dice.uniform(-spread, spread)
        r = dice.uniform(16, 34) * (0.7 + 0.5 * climb)
        shade = 150 + int(dice.uniform(0, 60))
        canvas.oval(x - r, 500 - r, x + r, 500 + r * 0.7, (shade, shade - 12, shade - 6))


def _rocket(canvas: Canvas, x: float, y: float) -> None:
    """A white body with a red tip, fins, a window, and fire below; x and y are its middle."""

    def shape(points: list[tuple[float, float]], fill: Colour) -> None:
        canvas.shape([(x + dx, y + dy) for dx, dy in points], fill)

    for wide, long, colour in ((22, 96, (255, 140, 50)), (14, 66, (255, 208, 96)), (7, 40, (255, 246, 214))):
        shape([(-wide, 88), (wide, 88), (0, 88 + long)], colour)
    shape([(-36, 40), (-66, 96), (-62, 104), (-30, 90)], (178, 38, 44))
    shape([(36, 40), (66, 96), (62, 104), (30, 90)], (150, 30, 38))
    body = [(36 * math.sin(math.pi * t) ** 0.6, -100 + 190 * t) for t in np.linspace(0, 0.86, 40).tolist()]
    tip = [(dx, dy) for dx, dy in body if dy < -46]
    shape([*((-dx, dy) for dx, dy in body), *reversed(body)], (236, 234, 238))
    shape([(0, -100), *body, (10, body[-1][1])], (206, 204, 214))
    shape([*((-dx, dy) for dx, dy in tip), *reversed(tip)], (206, 48, 52))
    canvas.oval(x - 17, y - 32, x + 17, y + 2, (120, 124, 140))
    canvas.oval(x - 12, y - 27, x + 12, y - 3, (96, 176, 214))
    shape([(-7, 36), (7, 36), (6, 88), (-6, 88)], (192, 42, 48))
    shape([(-24, 62), (24, 62), (22, 74), (-22, 74)], (206, 48, 52))
