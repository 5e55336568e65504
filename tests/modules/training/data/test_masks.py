"""Masks of CogVideoX-Fun's inpaint stage: the specification's vectors, how often each kind comes, none that is empty."""

from math import sqrt

import pytest
import torch

from kinetograph.modules.training.data import masks

PHI = (sqrt(5) - 1) / 2


def vector(kind, first):
    """The first number, then those of the vectors."""
    rest = [first, *(((i + 1) * PHI + 0.1234567 * kind) % 1 for i in range(1000))]

    def uniforms(count):
        taken, rest[:] = rest[:count], rest[count:]
        return torch.tensor(taken, dtype=torch.float64)

    return uniforms


def extent(mask_fhw):
    """(first, last) with anything masked, of frames, rows and columns."""
    places = mask_fhw.nonzero()
    return [(int(places[:, axis].min()), int(places[:, axis].max())) for axis in range(3)]


@pytest.mark.parametrize(
    ("kind", "first", "ones", "frames", "rows", "columns"),
    [
        (0, 0.02, 5824, (0, 12), (0, 13), (13, 44)),
        (1, 0.15, 19968, (0, 12), (0, 31), (0, 47)),
        (2, 0.35, 13824, (4, 12), (0, 31), (0, 47)),
        (3, 0.55, 7680, (4, 8), (0, 31), (0, 47)),
        (4, 0.67, 1200, (3, 6), (12, 31), (0, 14)),
        (7, 0.85, 1040, (0, 12), (0, 7), (18, 28)),
        (8, 0.92, 1885, (0, 12), (1, 13), (23, 35)),
        (9, 0.97, 10752, None, (0, 31), (0, 47)),
    ],
)
def test_vectors(kind, first, ones, frames, rows, columns):
    mask = masks.draw_mask(13, 32, 48, vector(kind, first))
    assert int(mask.sum()) == ones and {*mask.unique().tolist()} <= {0.0, 1.0}
    assert extent(mask)[1:] == [rows, columns]
    if frames:
        assert extent(mask)[0] == frames
    else:
        assert mask[:4, 0, 0].tolist() == [1, 0, 1, 1]


def drawn(frames, count=150, seed=0):
    return torch.stack([masks.item_mask(frames, 16, 24, index, 0, seed) for index in range(count)])


@pytest.mark.parametrize(
    ("frames", "mean", "all_masked"), [(49, 0.63, 0.2), (13, 0.56, 0.2), (5, 0.455, 0.22), (1, 0.84, 0.8)]
)
def test_how_much_is_masked(frames, mean, all_masked):
    """As often as CogVideoX-Fun masks so much (1500 draws of it); five frames: what it leaves empty (.10) is redrawn."""
    some = drawn(frames)
    assert some.mean() == pytest.approx(mean, abs=0.1)
    assert some.flatten(1).all(dim=1).float().mean() == pytest.approx(all_masked, abs=0.1)


@pytest.mark.parametrize("frames", [2, 3, 5, 8])
def test_nothing_is_ever_left_empty(frames):
    """Fun leaves a tenth of clips of five frames without anything to make: four known at both ends."""
    assert drawn(frames, 200).flatten(1).any(dim=1).all()


def test_an_empty_mask_is_drawn_anew():
    """First the ends known, 4 of 8 each: nothing is left; then everything."""
    numbers = iter([0.55, 0.99, 0.15])
    mask = masks.draw_mask(8, 16, 16, lambda count: torch.tensor([next(numbers) for _ in range(count)]))
    assert mask.all() and next(numbers, None) is None


def test_kinds_with_many_numbers():
    noise = masks.draw_mask(13, 32, 48, stream(0.72))
    assert noise.mean() == pytest.approx(0.5, abs=0.02) and not (noise[0] == noise[1]).all()
    for seed in range(20):
        boxes = masks.draw_mask(13, 32, 48, stream(0.78, seed))
        frames = [frame for frame in boxes if frame.any()]
        assert 1 <= len(frames) <= 6
        for frame in frames:
            (top, bottom), (left, right) = extent(frame[None])[1:]
            assert bottom - top < 8 and right - left < 12
            assert frame.sum() == (bottom - top + 1) * (right - left + 1)


def stream(first, seed=0):
    source, given = torch.Generator().manual_seed(seed), iter([first])

    def uniforms(count):
        first = next(given, None)
        return torch.rand(count, generator=source) if first is None else torch.tensor([first])

    return uniforms


def test_one_mask_for_one_cut():
    assert torch.equal(masks.item_mask(13, 32, 48, 7, 1, 5), masks.item_mask(13, 32, 48, 7, 1, 5))
    others = [
        masks.item_mask(49, 64, 64, *key) for key in [(7, 1, 5), (8, 1, 5), (7, 2, 5), (7, 1, 6), (9, 1, 5)]
    ]
    assert len({mask.sum().item() for mask in others}) > 2
