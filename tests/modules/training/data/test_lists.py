"""Items out of lists: clips in files and in memory give the cuts that a folder gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kinetograph.modules.grid import LatentGrid
from kinetograph.modules.training.data.cut import cut
from kinetograph.modules.training.data.formats import read_items
from kinetograph.modules.training.data.lists import Source, frames_source, items_from_lists
from kinetograph.modules.training.data.plan import plan_cuts
from kinetograph.modules.training.recipe import Data
from kinetograph.tests.films import write

GRID = LatentGrid(channels=4, stride_t=1, stride_hw=8, lone_first=False)
DATA = Data("", width=32, height=32, frames=5, stride=2, crop="random", variants=2)


@pytest.fixture
def noise():
    return np.random.default_rng(4).integers(0, 256, (30, 40, 56, 3), np.uint8)


def test_a_list_gives_what_a_folder_gives(tmp_path, noise):
    path = write(tmp_path / "a.mp4", noise, 24)
    (tmp_path / "a.txt").write_text("a ball\n")
    held = frames_source(torch.from_numpy(noise).float() / 255, 24.0)
    folder = plan_cuts(read_items(tmp_path), DATA, GRID).cuts
    for source in (Source(path), held):
        listed = plan_cuts(items_from_lists("the list", [source], ["a ball "]), DATA, GRID).cuts
        for ours, theirs in zip(map(cut, listed), map(cut, folder), strict=True):
            assert (ours.caption, ours.fps) == (theirs.caption, theirs.fps) == ("a ball", 12.0)
            assert torch.equal(ours.frames, theirs.frames)


def test_a_part_of_a_video(tmp_path, noise):
    path = write(tmp_path / "a.mp4", noise, 10)
    parts = items_from_lists("videos", [Source(path, 1.0, 0.9), Source(path, 2.0)], ["x", "y"])
    data = replace(DATA, width=40, height=40, variants=1, crop="centre", begin="first")
    plan = plan_cuts(parts, data, GRID)
    assert [planned.frames for planned in plan.cuts] == [(0, 2, 4, 6, 8)] * 2
    with pytest.raises(ValueError, match="fewer frames"):
        plan_cuts(items_from_lists("videos", [Source(path, 1.0, 0.8)], ["x"]), data, GRID)
    first = cut(plan.cuts[0]).frames[0] * 255
    assert torch.equal(first.round().byte(), torch.from_numpy(noise[10, :, 8:48]))


def test_pictures_and_their_digests(noise):
    frames = torch.from_numpy(noise).float() / 255
    picture, same, other = (frames_source(frames[index : index + 1]) for index in (0, 0, 1))
    assert picture.footage.rate is None and picture.digest == same.digest != other.digest
    with pytest.raises(ValueError, match="30 frames make a clip, which needs its frames per second"):
        frames_source(frames)
    plan = plan_cuts(items_from_lists("pictures", [picture, other], ["x", ""]), DATA, GRID)
    assert [*plan.report.sentences()] == ["1 of 2 left out: it has no caption (number 2)."]
    assert plan.cuts[0].item.kind == "image" and plan.cuts[0].frames == (0,)


def test_identity_is_of_what_decides_the_pixels(tmp_path, noise):
    frames = torch.from_numpy(noise).float() / 255

    def identity(source, data=DATA, seed=0):
        return plan_cuts(items_from_lists("x", [source], ["x"]), data, GRID, seed).cuts[0].identity

    one = identity(frames_source(frames, 24.0))
    assert one == identity(frames_source(frames.clone(), 24.0)) and hash(one) == hash(one)
    others = [
        identity(frames_source(frames.flip(0), 24.0)),
        identity(frames_source(frames, 24.0), seed=1),
        identity(frames_source(frames, 24.0), replace(DATA, width=40)),
        identity(frames_source(frames, 24.0), replace(DATA, stride=1)),
        identity(frames_source(frames, 24.0), replace(DATA, camera="zoom_in")),
        identity(frames_source(frames, 24.0), replace(DATA, masks="fun")),
    ]
    assert len({one, *others}) == 7


def test_lists_that_do_not_fit(noise):
    with pytest.raises(ValueError, match="videos: got 2 clips or pictures and 1 captions"):
        items_from_lists("videos", [Source("a.mp4")] * 2, ["x"])
    with pytest.raises(ValueError, match="The data set videos has nothing to train on"):
        items_from_lists("videos", [], [])
    with pytest.raises(ValueError, match=r"its name ends in .exe.* \(b.exe\)"):
        items_from_lists("videos", [Source("/x/b.exe")], ["x"])
