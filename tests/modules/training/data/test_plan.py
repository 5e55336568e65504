"""Cuts of real files: what is planned is what comes, chance depends on the item alone, and bad items are told before."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.grid import LatentGrid
from kinetograph.modules.training.data.cut import cut, cut_item
from kinetograph.modules.training.data.formats import read_items
from kinetograph.modules.training.data.plan import plan_cuts
from kinetograph.modules.training.recipe import Data
from kinetograph.tests.data_folders import film, picture

PICTURES = LatentGrid(channels=4, stride_t=1, stride_hw=8, lone_first=False)
VOLUMES = next(family.diffusion.grid for family in FAMILIES if family.id == "cogvideox")
DATA = Data("", width=32, height=32, frames=5)


def numbers(frames):
    """Which frames of a film of `shots` these are."""
    return (frames[:, 16, 16, 0] * 255 / 4).round().int().tolist()


def the_item(folder):
    (item,) = read_items(folder).items
    return item


def test_a_cut(tmp_path):
    film(tmp_path, "a")
    data = replace(DATA, stride=3, start=0.5, begin="first")
    made = cut_item(the_item(tmp_path), data, PICTURES)
    assert made.frames.shape == (5, 32, 32, 3) and made.frames.dtype == torch.float32
    assert numbers(made.frames) == [30, 33, 36, 39, 42]
    assert (made.caption, made.fps, made.control, made.mask) == ("a ball", 8.0, None, None)
    # all but the corners grow by 12 of 255 a frame, counted in -1..1
    wanted = 2 * np.std(12 / 255 * np.arange(5), ddof=1)
    assert made.motion == pytest.approx(wanted * (1 - 2 * 64 / 1024), rel=0.3)


def test_clips_of_unlike_rates_play_at_one_speed(tmp_path):
    film(tmp_path, "a", rate=24)
    film(tmp_path, "b", rate=48)
    data = replace(DATA, fps=12)
    cuts = plan_cuts(read_items(tmp_path), data, PICTURES).cuts
    assert [planned.fps for planned in cuts] == [12, 12]
    assert [{*np.diff(planned.frames)} for planned in cuts] == [{2}, {4}]


def test_starts_lie_everywhere_in_the_window(tmp_path):
    """DiffSynth starts at 0 always, and never sees what lies behind; the window is that of `start` and `end`."""
    film(tmp_path, "a")
    data = replace(DATA, start=0.25, end=0.5, variants=60)
    plan = plan_cuts(read_items(tmp_path), data, PICTURES)
    firsts = [planned.frames[0] for planned in plan.cuts]
    assert {*firsts} == {*range(15, 26)}
    assert firsts == [planned.frames[0] for planned in plan_cuts(read_items(tmp_path), data, PICTURES).cuts]
    assert firsts != [
        planned.frames[0] for planned in plan_cuts(read_items(tmp_path), data, PICTURES, seed=1).cuts
    ]
    third = cut(plan.cuts[3])
    assert numbers(third.frames) == [*plan.cuts[3].frames]


def test_a_bad_item_changes_nothing_of_the_others(tmp_path):
    for name in "abc":
        film(tmp_path, name)
    data = replace(DATA, crop="random", variants=2)
    before = plan_cuts(read_items(tmp_path), data, PICTURES).cuts
    (tmp_path / "a.mp4").write_bytes(b"broken")
    after = plan_cuts(read_items(tmp_path), data, PICTURES).cuts
    assert after == before[2:]


@pytest.mark.parametrize("count", [4, 5, 8, 15, 60])
def test_short_files_give_short_samples_where_lengths_differ_anyway(tmp_path, count):
    """As the token budget and random frames have them: folded by the grid, at the right speed, never stretched."""
    film(tmp_path, "a", count=count)
    data = replace(DATA, frames=17, stride=2, token_size=32)
    there = 17 if count >= 33 else count // 2
    planned = plan_cuts(read_items(tmp_path), data, VOLUMES).cuts[0]
    assert len(planned.frames) == (there - 1) // 4 * 4 + 1 and {*np.diff(planned.frames)} <= {2}
    if there < 17:
        with pytest.raises(ValueError, match="fewer frames than a clip of 17, 2 apart"):
            plan_cuts(read_items(tmp_path), replace(data, token_size=0), VOLUMES)


def test_random_frames_come_from_the_front_and_masks_fit_them(tmp_path):
    """The mask is drawn for the clip as it is: Fun draws over all frames and cuts, and may leave nothing to make."""
    film(tmp_path, "a")
    data = replace(DATA, frames=17, random_frames="fun", masks="fun", variants=40, begin="first")
    plan = plan_cuts(read_items(tmp_path), data, VOLUMES)
    lengths = [len(planned.frames) for planned in plan.cuts]
    assert {*lengths} == {5, 9, 13, 17} and lengths.count(17) > 28
    assert {planned.frames[0] for planned in plan.cuts} == {0}
    for planned in plan.cuts[:10]:
        made = cut(planned)
        assert made.mask.shape == made.frames.shape[:3] and made.mask.any()


def test_a_file_as_long_as_a_clip_is_cut_at_its_end(tmp_path):
    film(tmp_path, "a", count=17)
    data = replace(DATA, frames=17, random_frames="fun", variants=30)
    plan = plan_cuts(read_items(tmp_path), data, VOLUMES)
    assert {len(planned.frames) for planned in plan.cuts} > {17}
    assert {planned.frames[0] for planned in plan.cuts} == {0}


def test_sizes_of_a_plan_are_those_of_its_cuts(tmp_path):
    """Clips and pictures of several aspects, in buckets, with a budget of tokens: all known before decoding."""
    film(tmp_path, "wide", width=288, height=144)
    film(tmp_path, "tall", width=144, height=240)
    picture(tmp_path, "square.png", 64, 64)
    data = Data("", width=32, height=32, frames=17, token_size=64, image_size=160, buckets=True, variants=3)
    plan = plan_cuts(read_items(tmp_path), data, VOLUMES)
    assert len(plan.cuts) == 9 and len({(planned.width, planned.height) for planned in plan.cuts}) > 3
    for planned in plan.cuts:
        made = cut(planned)
        assert made.frames.shape == (len(planned.frames), planned.height, planned.width, 3)
        VOLUMES.latent_size(planned.width, planned.height)
        VOLUMES.latent_frames(len(planned.frames))
    lone = next(planned for planned in plan.cuts if planned.item.kind == "image")
    assert (lone.frames, lone.fps, cut(lone).motion) == ((0,), None, 0.0)


def test_each_clip_is_covered_by_its_own_size(tmp_path):
    """Not by that of the batch's first, which squeezes the others: as PIL has each of them."""
    for name, size in (("a.png", (96, 48)), ("b.png", (64, 90))):
        pixels = picture(tmp_path, name, *size)
        item = next(item for item in read_items(tmp_path).items if item.name == name)
        ours = cut_item(item, DATA, PICTURES).frames[0].numpy()
        wide = Image.fromarray(pixels).resize(
            (64, 32) if name == "a.png" else (32, 45), Image.Resampling.BICUBIC
        )
        left, top = (16, 0) if name == "a.png" else (0, 6)
        theirs = np.asarray(wide, np.float32)[top : top + 32, left : left + 32] / 255
        assert np.abs(ours - theirs).max() < 0.04


@pytest.fixture
def controlled(tmp_path):
    """A clip, and its negative as the clip to follow."""
    noise = np.random.default_rng(5).integers(0, 256, (20, 40, 80, 3), np.uint8)
    film(tmp_path, "a", frames=noise)
    film(tmp_path, "b", frames=255 - noise)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()

    def entries(**more):
        entry = {"file_path": "a.mp4", "text": "x", "type": "video", "control_file_path": "b.mp4", **more}
        (tmp_path / "data.json").write_text(json.dumps([entry]))
        return read_items(tmp_path)

    return entries


def test_control_has_the_same_frames_crop_and_side(controlled):
    data = replace(DATA, crop="random", flip=True, variants=6)
    plan = plan_cuts(controlled(), data, PICTURES)
    assert {planned.flipped for planned in plan.cuts} == {True, False}
    assert len({planned.across for planned in plan.cuts}) == 6
    for planned in plan.cuts:
        made = cut(planned)
        # beyond 0..1 each is cut off by itself
        assert (made.frames + made.control - 1).abs().mean() < 0.005


def test_control_that_does_not_fit(controlled, tmp_path):
    film(tmp_path, "short", count=6, caption=None)
    for name, words in (
        ("short.mp4", "its control clip has fewer frames"),
        ("data.json", "its control file cannot be used: its name ends in .json"),
    ):
        with pytest.raises(ValueError, match=words):
            plan_cuts(controlled(control_file_path=name), replace(DATA, frames=16), PICTURES)
    with pytest.raises(ValueError, match="the control file is not there"):
        controlled(control_file_path="gone.mp4")


def test_mirrored_clips(tmp_path):
    film(tmp_path, "a", frames=np.random.default_rng(2).integers(0, 256, (9, 40, 40, 3), np.uint8))
    data = replace(DATA, flip=True, begin="first", variants=12)
    plan = plan_cuts(read_items(tmp_path), data, PICTURES)
    sides = {planned.flipped: cut(planned).frames for planned in plan.cuts}
    assert torch.equal(sides[True], sides[False].flip(2)) and not torch.equal(sides[True], sides[False])
    assert not plan.report.notes
    (tmp_path / "a.txt").write_text("It rolls to the left.")
    plan = plan_cuts(read_items(tmp_path), data, PICTURES)
    assert not any(planned.flipped for planned in plan.cuts)
    assert plan.report.notes == ("1 of 1 never mirrored: the caption names a side or a turn.",)


def test_a_camera_movement_on_a_cut(tmp_path):
    """Over a still clip whose red grows to the right: the camera goes right, so the middle grows redder."""
    ramp = np.zeros((20, 64, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(0, 256, 4)[None, None, :]
    film(tmp_path, "a", frames=ramp)
    picture(tmp_path, "b.png")
    data = replace(DATA, frames=16, camera="pan_right")
    plan = plan_cuts(read_items(tmp_path), data, PICTURES)
    assert plan.report.counts == {"it is a picture, which shows no camera movement": 1}
    frames = cut(plan.cuts[0]).frames
    assert frames.shape == (16, 32, 32, 3)
    # a quarter of the side over the clip
    steps = frames[:, 16, 16, 0].diff() * 255 / 4 / 64
    assert steps.mean().item() == pytest.approx(0.25 / 15, rel=0.05) and (steps > 0).all()
