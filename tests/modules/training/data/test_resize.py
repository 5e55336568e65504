"""Sizes of samples: the specification's vectors of buckets, covers and token budgets, and frames at a size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.grid import LatentGrid
from kinetograph.modules.training.data import sizes
from kinetograph.modules.training.data.resize import cover, fit_frames
from kinetograph.modules.training.recipe import Data

GRID = next(family.diffusion.grid for family in FAMILIES if family.id == "cogvideox")
FUN = Data("", width=256, height=256, frames=49, token_size=512, image_size=1024, buckets=True)
ANY = lambda latent_frames: True  # noqa: E731
EVEN = lambda latent_frames: latent_frames % 2 == 0 or latent_frames == 1  # noqa: E731


@pytest.mark.parametrize(
    ("height", "width", "at_512", "covered", "others"),
    [
        (1080, 1920, (384, 672), (384, 682), {256: (192, 336), 768: (576, 1008), 1024: (768, 1344)}),
        (480, 720, (416, 608), (416, 624), {256: (208, 304), 768: (624, 912), 1024: (832, 1216)}),
        (1920, 1080, (672, 384), (682, 384), {}),
        (512, 512, (512, 512), (512, 512), {}),
        (1080, 1350, (448, 544), (448, 560), {256: (224, 272), 768: (672, 816), 1024: (896, 1088)}),
        (800, 2400, (288, 864), (288, 864), {}),
        (240, 320, (416, 576), (432, 576), {}),
        (1000, 500, (704, 352), (704, 352), {}),
    ],
)
def test_buckets_and_covers(height, width, at_512, covered, others):
    for base, wanted in {512: at_512, **others}.items():
        data = replace(FUN, width=512, height=512)
        assert sizes.size_at(data, GRID, base, width, height)[::-1] == wanted
    assert cover(width, height, *at_512[::-1])[::-1] == covered


@pytest.mark.parametrize(
    ("num_frames", "token_size", "fits", "wanted"),
    [
        (49, 512, ANY, [49, 49, 49, 29, 21, 13, 9, 9, 5]),
        (49, 768, ANY, [49, 49, 49, 49, 49, 33, 25, 21, 17]),
        (49, 1024, ANY, [49, 49, 49, 49, 49, 49, 49, 37, 29]),
        (85, 512, ANY, [85, 85, 85, 53, 37, 25, 21, 13, 13]),
        (85, 512, EVEN, [85, 85, 85, 53, 37, 21, 21, 13, 13]),
        (48, 1024, ANY, [45] * 7 + [37, 29]),
    ],
)
def test_frames_of_a_budget(num_frames, token_size, fits, wanted):
    """Fun's own code gives 17 at 896 and 13 at 1024 for 49 at 512, and 49 where 48 is the most."""
    bases = range(256, 1281, 128)
    assert [sizes.budget_frames(GRID, num_frames, token_size, base, fits) for base in bases] == wanted


def test_sizes_of_a_budget():
    bases = sizes.budget_bases(256, 1024)
    assert bases == [256, 384, 512, 640, 768, 896, 1024]
    assert sizes.budget_bases(256, 1000) == [256, 384, 512, 640, 768, 896, 1000]
    assert sizes.base_choices(bases, 320, 180) == [256]
    assert sizes.base_choices(bases, 640, 360) == [256, 384, 512]
    assert sizes.base_choices(bases, 720, 480) == [256, 384, 512, 640]
    assert sizes.base_choices(bases, 1280, 720) == bases
    # Fun draws any of them for a clip that is too small for all
    assert sizes.base_choices(bases, 96, 64) == [256]
    drawn = [sizes.choose_base(FUN, False, 640, 360, index, 0, 1) for index in range(90)]
    assert {*drawn} == {256, 384, 512} and max(map(drawn.count, drawn)) < 50


def test_sizes_of_pictures_beside_clips():
    """1024 three times out of four, else divided by 1.25, 1.5, 2 or 1024 / 256."""
    drawn = [sizes.choose_base(FUN, True, 2000, 2000, index, 0, 1) for index in range(300)]
    assert {*drawn} == {1024, 819, 682, 512, 256}
    assert 0.68 < drawn.count(1024) / 300 < 0.82
    without = replace(FUN, token_size=0)
    assert {sizes.choose_base(without, True, 2000, 2000, index, 0, 1) for index in range(9)} == {1024}
    assert sizes.choose_base(without, False, 2000, 2000, 0, 0, 1) == 256


def test_short_samples_are_repeated():
    full = replace(FUN, token_size=512)
    assert sizes.repeats(49, 256, 256, full) == 2 and sizes.repeats(49, 384, 384, full) == 1
    assert sizes.repeats(1, 1024, 1024, full) == 2 and sizes.repeats(1, 768, 768, full) == 4
    assert sizes.repeats(1, 64, 64, replace(full, token_size=0)) == 1


def test_own_aspect_at_another_base():
    grid = LatentGrid(4, 1, 8, False)
    data = Data("", width=512, height=320)
    assert sizes.base_of(data) == 405 and sizes.size_at(data, grid, 405, 99, 9) == (512, 320)
    assert sizes.size_at(data, grid, 810, 99, 9) == (1024, 640)


def test_frames_keep_their_aspect_and_are_antialiased():
    """As PIL's own bicubic, which widens its kernel too; nothing is squeezed."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    fitted = fit_frames([torch.from_numpy(pixels)], 1, 48, 48)
    image = Image.fromarray(pixels).resize((85, 48), Image.Resampling.BICUBIC)
    wanted = np.asarray(image, np.float32)[:, 18:66] / 255
    assert fitted.shape == (1, 48, 48, 3)
    assert np.abs(fitted[0].numpy() - wanted).max() < 3 / 255


def test_places_of_a_crop():
    frames = torch.arange(100, dtype=torch.uint8)[None, None, :, None].expand(2, 40, -1, 3)
    starts = [int(fit_frames(frames, 2, 40, 40, across)[0, 0, 0, 0] * 255 + 0.5) for across in (0, 0.5, 1)]
    assert starts == [0, 30, 60]
