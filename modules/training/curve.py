"""A training drawn: its losses over the steps, and what its latest samples look like."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 512, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 24
PAPER, GRID, RAW, MEAN, WORDS = "#1e1e24", "#34343e", "#5b6b86", "#ffb347", "#c8c8d0"
# steps that the running mean looks back, of all that are drawn
BACK = 0.05
# samples that stay below the curve
STRIPS = 3


def running_mean(losses: Sequence[float]) -> list[float]:
    """Each loss averaged with those shortly before it: single ones tell little, as each has a noise level of its own."""
    means, back = [], max(1, round(BACK * len(losses)))
    for index in range(len(losses)):
        recent = losses[max(0, index + 1 - back) : index + 1]
        means.append(sum(recent) / len(recent))
    return means


def draw_curve(losses: Sequence[float], total: int) -> Image.Image:
    """Losses of the steps 1 to n, on an axis to `total`, with their running mean in front."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    high = high if high > low else low + max(abs(low), 1.0) * 0.1
    total = max(total, len(losses), 2)

    def place(step: int, loss: float) -> tuple[float, float]:
        across = LEFT + (step - 1) / (total - 1) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for loss in (low, (low + high) / 2, high):
        _, y = place(1, loss)
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID)
        pen.text((4, y - 6), f"{loss:.3g}", WORDS)
    for step in (1, total):
        text = str(step)
        x, _ = place(step, low)
        pen.text((min(x, WIDTH - RIGHT - 7 * len(text)), HEIGHT - BOTTOM + 6), text, WORDS)
    for values, colour, width in ((losses, RAW, 1), (running_mean(losses), MEAN, 2)):
        points = [place(step, loss) for step, loss in enumerate(values, 1)]
        if len(points) > 1:
            pen.line(points, colour, width)
        for x, y in points[-1:]:
            pen.ellipse([x - 2, y - 2, x + 2, y + 2], colour)
    return picture


def with_samples(curve: Image.Image, samples: Sequence[tuple[int, Image.Image]]) -> Image.Image:
    """The curve, and below it the latest samples of (step, strip of frames), the newest last."""
    shown = [(step, _as_wide(strip)) for step, strip in samples[-STRIPS:]]
    whole = Image.new("RGB", (WIDTH, curve.height + sum(strip.height for _, strip in shown)), PAPER)
    whole.paste(curve, (0, 0))
    pen, y = ImageDraw.Draw(whole), curve.height
    for step, strip in shown:
        whole.paste(strip, (LEFT, y))
        pen.text((4, y + 4), str(step), WORDS)
        y += strip.height
    return whole


def open_picture(file: Path) -> Image.Image:
    """A picture of a file, all of it read."""
    with Image.open(file) as picture:
        return picture.convert("RGB")


def _as_wide(strip: Image.Image) -> Image.Image:
    """A strip of frames as wide as the curve; small latents stay squares."""
    width = WIDTH - LEFT - RIGHT
    return strip.resize((width, max(1, round(strip.height * width / strip.width))), Image.Resampling.NEAREST)
