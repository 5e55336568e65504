"""Draws the icon and the banner that the registry shows: `python assets/draw.py`, with Pillow alone.

A strip of film in which a shape moves on from frame to frame, as in the pocket models' clips.
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parent
FINE = 4  # drawn this much larger, then reduced: smooth edges
NIGHT, FILM, HOLE, PAPER = "#12162e", "#2b3157", "#12162e", "#f4efe2"
RED, BLUE, GREEN = "#e5484d", "#3e7bfa", "#3fae6a"

Box = tuple[float, float, float, float]
Draw = ImageDraw.ImageDraw
Shape = Callable[[Draw, float, float, float], None]  # at x, y, of a radius


def circle(draw: Draw, x: float, y: float, r: float) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=RED)


def square(draw: Draw, x: float, y: float, r: float) -> None:
    side = 0.88 * r
    draw.rectangle((x - side, y - side, x + side, y + side), fill=BLUE)


def triangle(draw: Draw, x: float, y: float, r: float) -> None:
    draw.polygon([(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], fill=GREEN)


def strip(draw: Draw, box: Box, frames: int, holes: int, shape: Shape, rise: float) -> None:
    """A strip of film with a shape on its way from left to right; `rise` is how far up it goes, in frame heights."""
    left, top, right, bottom = box
    height, wide = bottom - top, (right - left) / frames
    draw.rectangle(box, fill=FILM)
    edge, gap = 0.17 * height, 0.06 * wide
    for i in range(holes * frames):
        x = left + (i + 0.5) * wide / holes
        for y in (top + edge / 2, bottom - edge / 2):
            w, h = 0.22 * wide / holes, 0.24 * edge
            draw.rounded_rectangle((x - w, y - h, x + w, y + h), radius=h / 2, fill=HOLE)
    for i in range(frames):
        x0, x1 = left + i * wide + gap, left + (i + 1) * wide - gap
        y0, y1 = top + edge, bottom - edge
        draw.rounded_rectangle((x0, y0, x1, y1), radius=gap, fill=PAPER)
        way = i / max(1, frames - 1)  # from 0 to 1
        r = 0.26 * (y1 - y0)
        x = x0 + r * 1.3 + way * (x1 - x0 - 2.6 * r)
        y = (y0 + y1) / 2 + (0.5 - way) * rise * (y1 - y0)
        shape(draw, x, y, r)


def icon(size: int = 400) -> Image.Image:
    side = size * FINE
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), radius=0.18 * side, fill=NIGHT)
    strip(draw, (0.07 * side, 0.20 * side, 0.93 * side, 0.80 * side), 2, 3, circle, 0.3)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def banner(width: int = 1260, height: int = 540) -> Image.Image:
    wide, high = width * FINE, height * FINE
    image = Image.new("RGB", (wide, high), NIGHT)
    draw = ImageDraw.Draw(image)
    for i, (shape, rise) in enumerate(((circle, 0.3), (square, -0.3), (triangle, 0.3))):
        top = (0.06 + 0.30 * i) * high
        strip(draw, (0.50 * wide, top, 1.02 * wide, top + 0.28 * high), 5, 3, shape, rise)
    texts = (("Kinetograph", 0.155, 0.34, PAPER), ("video diffusion for ComfyUI", 0.062, 0.55, "#aab2dd"))
    for text, size, y, colour in texts:
        font = ImageFont.load_default(size * high)
        draw.text((0.045 * wide, y * high), text, font=font, fill=colour, anchor="lm")
    return image.resize((width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    icon().save(FOLDER / "icon.png", optimize=True)
    banner().save(FOLDER / "banner.png", optimize=True)
