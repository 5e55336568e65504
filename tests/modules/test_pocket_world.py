"""The shape world is seeded and captioned, and the detector reads true clips without fault."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from kinetograph.pocket.detector import Reading, best_overlap, read_clip, wholeness
from kinetograph.pocket.shapes import (
    COLOURS,
    FRAMES,
    GROUND,
    MOTIONS,
    SHAPES,
    SIZE,
    all_subjects,
    draw,
    draw_batch,
    draw_mask,
    outline_distance,
    sample_clip,
)

BORDER = 1  # pixels that no shape may touch


def test_subjects_are_every_combination():
    assert len(all_subjects()) == 6 * 3 * 5
    assert set(all_subjects()) == set(product(COLOURS, SHAPES, MOTIONS))


def test_same_seed_same_clip():
    assert sample_clip(7) == sample_clip(7)
    assert torch.equal(draw(sample_clip(7)), draw(sample_clip(7)))
    assert len({sample_clip(seed) for seed in range(50)}) == 50


def test_seed_is_independent_of_the_subject():
    free, fixed = sample_clip(3), sample_clip(3, ("red", "circle", "moving left"))
    assert (free.radius, free.path, free.middle) == (fixed.radius, fixed.path, fixed.middle)


def test_seeds_cover_the_world_evenly():
    counts = Counter(sample_clip(seed).shape for seed in range(3000))
    assert all(abs(count - 1000) < 120 for count in counts.values())


def test_captions_say_what_is_drawn():
    assert sample_clip(0, ("red", "circle", "moving left")).caption == "a red circle moving left"
    assert sample_clip(0, ("blue", "triangle", "standing still")).caption == "a blue triangle standing still"
    assert len({sample_clip(0, subject).caption for subject in all_subjects()}) == 90


def test_pixels_and_sizes():
    frames = draw(sample_clip(1))
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert 0 <= float(frames.min()) and float(frames.max()) <= 1
    batch = draw_batch([sample_clip(1), sample_clip(2)])
    assert batch.shape == (2, 3, FRAMES, SIZE, SIZE)
    assert torch.allclose(batch[0].permute(1, 2, 3, 0) / 2 + 0.5, frames, atol=1e-6)


@pytest.mark.parametrize("subject", all_subjects()[::7])
def test_shapes_stay_inside(subject):
    for seed in range(10):
        cover = draw_mask(sample_clip(seed, subject))
        cover[:, BORDER:-BORDER, BORDER:-BORDER] = 0
        assert float(cover.max()) == 0


def test_detector_reads_true_clips():
    clips = [sample_clip(900 + i, subject) for i, subject in enumerate(all_subjects() * 2)]
    wrong = [clip for clip in clips if read_clip(draw(clip)) != Reading(clip.colour, clip.shape, clip.motion)]
    assert len(wrong) <= 0.01 * len(clips), wrong


def test_detector_reads_soft_and_noisy_clips():
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for i, subject in enumerate(all_subjects()):
        clip = sample_clip(i, subject)
        frames = F.avg_pool2d(draw(clip).permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False)
        frames = frames.permute(0, 2, 3, 1) + 0.03 * torch.randn(FRAMES, SIZE, SIZE, 3, generator=generator)
        wrong += read_clip(frames) != Reading(clip.colour, clip.shape, clip.motion)
    assert wrong <= 2


def test_detector_sees_nothing_on_an_empty_ground():
    assert read_clip(torch.full((FRAMES, SIZE, SIZE, 3), 0.1)) == Reading(None, None, None)


def test_detector_calls_no_slanting_way_a_motion():
    left = draw(sample_clip(0, ("red", "circle", "moving left")))
    slanting = torch.stack([frame.roll(i, 0) for i, frame in enumerate(left)])
    assert read_clip(slanting).motion is None


def solid(shape, radius, x=31.3, y=33.8):
    """A shape of any size and place, cut at half cover."""
    at = torch.arange(SIZE) + 0.5
    return outline_distance(shape, at - x, at[:, None] - y, torch.tensor(radius)) < 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [9.0, 11.4])
def test_a_whole_shape_of_any_size_overlaps_fully(shape, radius):
    assert best_overlap(solid(shape, radius), shape) > 0.985


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bite_costs_about_what_it_takes_away(shape):
    whole = solid(shape, 11.4)
    # left of the centre at the height of its middle: every shape has its outline there
    left = 31.3 - {"circle": 11.4, "square": 0.9 * 11.4, "triangle": 0.75 * 11.4}[shape]
    bitten = whole & ~solid("circle", 5.0, x=left)
    kept = float(bitten.sum() / whole.sum())
    assert 0.8 < kept < 0.95
    # the whole shape is one of those that are tried, or near one
    assert kept - 0.005 < best_overlap(bitten, shape) < (1 + kept) / 2


def test_a_circle_fits_a_square_as_far_as_geometry_allows():
    # side by area, pi ** 0.5, of a circle of radius 1: four segments stand out, as much is missing at the corners
    half = math.pi**0.5 / 2
    outside = 4 * (math.acos(half) - half * math.sqrt(1 - half**2))
    expected = (math.pi - outside) / (math.pi + outside)
    assert best_overlap(solid("circle", 12.0), "square") == pytest.approx(expected, abs=0.015)
    assert best_overlap(solid("circle", 12.0), "triangle") < expected - 0.05


@pytest.mark.parametrize("colour", COLOURS)
def test_a_true_clip_is_whole_and_a_wrong_shape_is_not(colour):
    clip = sample_clip(4, (colour, "square", "moving up"))
    assert wholeness(draw(clip)[::8], "square") > 0.985
    assert wholeness(draw(clip)[::8], "circle") < 0.9


def test_frames_that_show_nothing_are_not_whole():
    frames = draw(sample_clip(4, ("red", "circle", "standing still")))[:2]
    frames[1] = torch.tensor(GROUND)
    assert wholeness(frames, "circle") == pytest.approx(0.5, abs=0.01)
    assert wholeness(torch.full((1, SIZE, SIZE, 3), 0.1), "circle") == 0


@pytest.mark.parametrize(("dimmed", "whole"), [(0.6, True), (0.4, False)])
def test_what_is_drawn_less_than_half_is_not_drawn(dimmed, whole):
    ground, colour = torch.tensor(GROUND), torch.tensor(COLOURS["yellow"])
    cover = solid("circle", 11.4).float()
    cover[:, :26] *= dimmed
    iou = wholeness((ground + cover[..., None] * (colour - ground))[None], "circle")
    assert iou > 0.985 if whole else iou < 0.9
