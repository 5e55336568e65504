"""What a clip of the shape world shows, read from its pixels alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .shapes import COLOURS, GROUND, MOTIONS, SHAPES, outline_distance

PRESENT = 0.25  # distance from the ground, in units of RGB 0..1, from which a pixel is not ground
SMALLEST = 60.0  # pixels a shape must cover to count as one
STILL = 5.0  # pixels; a shorter way from the first frames to the last is no motion
AREAS = {"circle": torch.pi, "square": 3.24, "triangle": 0.65**2 * 3 * 3**0.5}  # of radius 1
SHARES = torch.linspace(-0.12, 0.12, 5)  # first steps of the search for a fit: of the radius
SHIFTS = torch.linspace(-3, 3, 7)  # and of the centre, in pixels
FINER = (1.0, 1 / 3, 1 / 9)  # each step of the search is so much of the first


@dataclass(frozen=True)
class Reading:
    """What was seen; None where nothing, or nothing certain, was."""

    colour: str | None
    shape: str | None
    motion: str | None


def foreground(frames_fhwc: Tensor) -> Tensor:
    """How far each pixel is from the ground towards the clip's own brightest distance: (f, h, w) in 0..1."""
    away = (frames_fhwc - torch.tensor(GROUND)).norm(dim=-1)
    top = away.flatten().topk(max(1, away.numel() // 50)).values.median()
    return (away / top.clamp_min(PRESENT)).clamp(0, 1)


def centroids(cover_fhw: Tensor) -> Tensor:
    """Centre of mass of each frame: (f, 2), x then y, in pixels."""
    at = torch.arange(cover_fhw.shape[-1]) + 0.5
    mass = cover_fhw.sum((1, 2)).clamp_min(1e-6)
    return torch.stack([(cover_fhw.sum(1) * at).sum(1) / mass, (cover_fhw.sum(2) * at).sum(1) / mass], 1)


def read_colour(frames_fhwc: Tensor, cover_fhw: Tensor) -> str:
    """The palette colour nearest to the median of the pixels well inside the shape."""
    seen = frames_fhwc[cover_fhw > 0.8].median(dim=0).values
    return min(COLOURS, key=lambda name: float((seen - torch.tensor(COLOURS[name])).norm()))


def read_motion(centres: Tensor) -> str | None:
    """The way from the first three frames to the last three; None for a slanting one."""
    way = centres[-3:].mean(0) - centres[:3].mean(0)
    if float(way.norm()) < STILL:
        return "standing still"
    unit = way / way.norm()
    cosines = {name: float(unit @ torch.tensor(step, dtype=torch.float32)) for name, step in MOTIONS.items()}
    best = max(cosines, key=lambda name: cosines[name])
    return best if cosines[best] > 0.85 else None


def silhouette(shape: str, area: float, centre: Tensor, size: int) -> Tensor:
    """A shape of that area whose centre of mass is `centre`: (h, w) in 0..1."""
    at = torch.arange(size) + 0.5
    x, y = at[None, :] - centre[0], at[:, None] - centre[1]
    distance = outline_distance(shape, x, y, torch.tensor((area / AREAS[shape]) ** 0.5))
    return (0.5 - distance).clamp(0, 1)


def overlaps(solid_hw: Tensor, shape: str, fits_n3: Tensor) -> Tensor:
    """IoU of a drawn shape with ideal ones of centre x, y and radius: (n,)."""
    at = torch.arange(solid_hw.shape[-1]) + 0.5
    centre_x, centre_y, radius = fits_n3[:, :, None, None].unbind(1)
    ideal = outline_distance(shape, at - centre_x, at[:, None] - centre_y, radius) < 0
    return (ideal & solid_hw).sum((1, 2)) / (ideal | solid_hw).sum((1, 2)).clamp_min(1)


def best_overlap(solid_hw: Tensor, shape: str) -> float:
    """IoU of a drawn shape with the best fitting ideal one, 0 where nothing is drawn.

    The search starts at the drawn one's area and centre of mass and becomes finer in three steps.
    """
    area = float(solid_hw.sum())
    if not area:
        return 0.0
    centre = centroids(solid_hw[None].float())[0]
    fit = torch.tensor([*centre, (area / AREAS[shape]) ** 0.5])
    steps = torch.cartesian_prod(SHIFTS, SHIFTS, SHARES * fit[2])
    best = 0.0
    for finer in FINER:
        fits = fit + finer * steps
        found = overlaps(solid_hw, shape, fits)
        best, fit = float(found.max()), fits[found.argmax()]
    return best


def wholeness(frames_fhwc: Tensor, shape: str) -> float:
    """Mean over a clip's frames of the IoU of what is drawn with the best fitting ideal `shape`, 0..1.

    Both are cut hard at half cover of a pixel: a soft IoU would also take off for a blurred edge around a
    perfect outline, and would give part of the mass back for a bite that is only dim.
    """
    solid = foreground(frames_fhwc.float()) > 0.5
    return sum(best_overlap(frame, shape) for frame in solid) / len(solid)


def read_shape(cover_fhw: Tensor, centres: Tensor) -> str:
    """The silhouette that overlaps best at the seen area and centre, summed over every fourth frame."""
    solid = (cover_fhw * 2 - 0.5).clamp(0, 1)  # sharpens soft edges about their middle
    scores = dict.fromkeys(SHAPES, 0.0)
    for cover, centre in zip(solid[::4], centres[::4], strict=True):
        for shape in SHAPES:
            ideal = silhouette(shape, float(cover.sum()), centre, cover.shape[-1])
            scores[shape] += float((cover - ideal).abs().sum() / cover.sum().clamp_min(1))
    return min(scores, key=lambda name: scores[name])


def read_clip(frames_fhwc: Tensor) -> Reading:
    """Colour, shape and motion of a clip (f, h, w, 3) in 0..1; all None where a frame shows no shape."""
    frames = frames_fhwc.float()
    cover = foreground(frames)
    cover = cover * (cover > 0.2)
    areas = cover.sum((1, 2))
    if float(areas.min()) < SMALLEST or float((cover > 0.8).sum()) < SMALLEST:
        return Reading(None, None, None)
    centres = centroids(cover)
    return Reading(read_colour(frames, cover), read_shape(cover, centres), read_motion(centres))


def centres(frames_fhwc: Tensor) -> Tensor:
    """Where the shape is in each frame (f, 2), x then y, in pixels."""
    cover = foreground(frames_fhwc)
    return centroids(cover * (cover > 0.2))
