"""Sizes of clips: the published table, the budgets, and frames that fold."""

import pytest

from kinetograph.modules.conditioning import sizes
from kinetograph.modules.families import FAMILIES
from kinetograph.modules.families.family import FrameRule
from kinetograph.modules.grid import LatentGrid

# ASPECT_RATIO_512 of aigc-apps/EasyAnimate, one "key height x width" after the other
PUBLISHED = """.25 256x1024, .26 256x992, .27 256x960, .28 256x928, .32 288x896, .33 288x864, .35 288x832, .4 320x800,
.42 320x768, .48 352x736, .5 352x704, .52 352x672, .57 384x672, .6 384x640, .68 416x608, .72 416x576, .78 448x576,
.82 448x544, .88 480x544, .94 480x512, 1.0 512x512, 1.07 512x480, 1.13 544x480, 1.21 544x448, 1.29 576x448,
1.38 576x416, 1.46 608x416, 1.67 640x384, 1.75 672x384, 2.0 704x352, 2.09 736x352, 2.4 768x320, 2.5 800x320,
2.89 832x288, 3.0 864x288, 3.11 896x288, 3.62 928x256, 3.75 960x256, 3.88 992x256, 4.0 1024x256"""
ROWS = [(float(key), *map(int, size.split("x"))) for key, size in map(str.split, PUBLISHED.split(","))]
GRIDS = {family.id: family.diffusion.grid for family in FAMILIES if family.diffusion}


def test_the_table_is_the_published_one():
    assert len(ROWS) == 40 and list(sizes.BUCKETS) == ROWS


@pytest.mark.parametrize(("key", "height", "width"), ROWS)
def test_a_picture_of_a_row_gets_that_row(key, height, width):
    """A picture whose height / width is the key, at every base; sides are whole multiples of 16."""
    for base in (256, 512, 768, 960, 1024, 1280):
        across, down = (int(side * base / 512) // 16 * 16 for side in (width, height))
        assert sizes.bucket_size(10_000, round(10_000 * key), base) == (across, down)


def test_diffusers_lacks_seven_rows_and_agrees_on_the_others():
    from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_512_BIN

    theirs = {(float(key), *map(int, size)) for key, size in ASPECT_RATIO_512_BIN.items()}
    assert theirs < set(ROWS)
    assert {row[0] for row in set(ROWS) - theirs} == {0.26, 0.27, 2.89, 3.11, 3.62, 3.75, 3.88}


@pytest.mark.parametrize(
    ("base", "size"), [(512, (672, 384)), (768, (1008, 576)), (960, (1248, 720)), (1024, (1344, 768))]
)
def test_full_hd(base, size):
    """The specification's example, lying and standing."""
    assert sizes.bucket_size(1920, 1080, base) == size
    across, down = sizes.bucket_size(1080, 1920, base)
    assert (down, across) == size


@pytest.mark.parametrize("base", [256, 512, 768, 1024, 1280])
@pytest.mark.parametrize("shape", [(1080, 1920), (1920, 1080), (1000, 1000)])
def test_shapes_stay(base, shape):
    """Portrait stays portrait, landscape landscape, and a square has the base itself."""
    width, height = sizes.bucket_size(*shape, base)
    assert (width < height, width > height) == (shape[0] < shape[1], shape[0] > shape[1])
    assert width % 16 == height % 16 == 0
    if shape[0] == shape[1]:
        assert width == height == base
    assert 0.8 < width * height / base**2 <= 1.06


@pytest.mark.parametrize(
    ("tokens", "frames"),
    [
        (13312, {256: 49, 512: 49, 640: 29, 768: 21, 896: 13, 1024: 9, 1280: 5}),
        (29952, {512: 49, 768: 49, 1024: 25, 1280: 17}),
        (53248, {1024: 49, 1280: 29}),
    ],
)
def test_token_budgets(tokens, frames):
    """The specification's row for 512; the others by its formula, worked out by hand."""
    grid = GRIDS["cogvideox"]
    side = sizes.TOKENS[tokens]
    assert (side // 16) ** 2 * 13 == tokens
    for base, count in frames.items():
        assert sizes.frames_below(grid, sizes.token_frames(49, base, tokens)) == count
    assert sizes.token_frames(9, 512, 13312) == 9 and sizes.token_frames(49, 10_000, 13312) == 1


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((720, 480), (720, 480)),
        ((854, 480), (848, 480)),
        # 22.5 and 23.5 multiples: of two as near, the lower
        ((360, 376), (352, 368)),
        ((1080, 1920), (720, 1280)),
        ((1920, 1080), (1280, 720)),
        ((4000, 4000), (1280, 1280)),
        ((100, 100), (256, 256)),
        ((200, 100), (512, 256)),
        # 6 times as long as wide: the long side decides
        ((3000, 500), (1280, 208)),
    ],
)
def test_its_own_size(picture, size):
    assert sizes.own_size(*picture) == size


def test_its_own_size_in_other_multiples():
    assert sizes.own_size(1920, 1080, 64) == (1280, 704)
    assert sizes.own_size(500, 500, 64) == (512, 512)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_frames_fold(grid):
    """Against a search through all counts that fold."""

    def folds(count):
        try:
            return grid.latent_frames(count) > 0
        except ValueError:
            return False

    legal = [count for count in range(1, 120) if folds(count)]
    for count in range(1, 100):
        assert sizes.frames_below(grid, count) == max((c for c in legal if c <= count), default=legal[0])
        assert sizes.nearest_frames(grid, count) == min(legal, key=lambda c: (abs(c - count), c))


def test_frames_of_a_network_that_takes_pairs():
    """CogVideoX-Fun V1.5: one latent frame or an even number, 1, 5, 13, 21, ... 85 frames."""
    rule = FrameRule(2, pads=False, lone_frame=True)
    grid, legal = GRIDS["cogvideox"], [1, *range(5, 90, 8)]
    assert [count for count in range(1, 86, 4) if rule.fits(grid.latent_frames(count))] == legal
    for count in range(1, 86):
        assert sizes.frames_below(grid, count, rule.fits) == max(c for c in legal if c <= count)
        assert sizes.nearest_frames(grid, count, rule.fits) == min(legal, key=lambda c: (abs(c - count), c))
    alone = FrameRule(2, pads=False)
    assert sizes.frames_below(grid, 3, alone.fits) == 5 == sizes.nearest_frames(grid, 1, alone.fits)


def test_frames_of_a_vae_without_a_first_of_its_own():
    grid = LatentGrid(16, 4, 8, lone_first=False)
    assert [sizes.frames_below(grid, count) for count in (1, 4, 7, 8)] == [4, 4, 4, 8]


def test_what_is_cut():
    assert sizes.cropped_share(1920, 1080, 672, 384) == pytest.approx((1 - 672 / (1920 * 384 / 1080), 0))
    assert sizes.cropped_share(480, 480, 512, 512) == (0, 0)
    across, down = sizes.cropped_share(100, 200, 100, 100)
    assert across == 0 and down == pytest.approx(0.5)
