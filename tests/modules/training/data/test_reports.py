"""Bad items and choices that cannot be are told before the first step, with a count and names; nothing is hidden."""

from dataclasses import replace

import pytest

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.grid import LatentGrid
from kinetograph.modules.training.data.checks import check_data
from kinetograph.modules.training.data.cut import cut
from kinetograph.modules.training.data.formats import read_items
from kinetograph.modules.training.data.items import BadItem
from kinetograph.modules.training.data.plan import directional, plan_cuts
from kinetograph.modules.training.recipe import Data
from kinetograph.tests.data_folders import film, picture

PICTURES = LatentGrid(channels=4, stride_t=1, stride_hw=8, lone_first=False)
VOLUMES = next(family.diffusion.grid for family in FAMILIES if family.id == "cogvideox")
DATA = Data("", width=32, height=32, frames=5)


def the_item(folder):
    (item,) = read_items(folder).items
    return item


def test_every_reason_is_counted_before_the_first_step(tmp_path):
    film(tmp_path, "good")
    film(tmp_path, "mute", caption=None)
    film(tmp_path, "empty", caption=" \n")
    film(tmp_path, "short", count=16)
    film(tmp_path, "flat", height=14)
    picture(tmp_path, "thin.png", width=15)
    (tmp_path / "odd.mp4").write_bytes(b"no video at all")
    (tmp_path / "odd.txt").write_text("x")
    (tmp_path / "odd.png").write_bytes(b"no picture at all")
    dataset = read_items(tmp_path)
    plan = plan_cuts(dataset, replace(DATA, stride=4), PICTURES)
    assert [planned.item.name for planned in plan.cuts] == ["good.mp4"]
    assert [*plan.report.sentences()] == [
        "2 of 8 left out: it has no caption (empty.mp4, mute.mp4).",
        "2 of 8 left out: its pictures have less than 16 pixels on a side (flat.mp4, thin.png).",
        "1 of 8 left out: the file cannot be read as a video (odd.mp4).",
        "1 of 8 left out: the file cannot be read as a picture (odd.png).",
        "1 of 8 left out: it has fewer frames than a clip of 5, 4 apart, takes (short.mp4).",
    ]
    assert sum(plan.report.counts.values()) + len(plan.cuts) == plan.report.total
    texts_no_matter = plan_cuts(dataset, replace(DATA, stride=4), PICTURES, needs_text=False)
    assert [planned.item.name for planned in texts_no_matter.cuts] == ["empty.mp4", "good.mp4", "mute.mp4"]


def test_nothing_left_is_an_error_with_all_reasons(tmp_path):
    film(tmp_path / "set", "a", count=4)
    film(tmp_path / "set", "b", caption=None)
    with pytest.raises(ValueError) as caught:
        plan_cuts(read_items(tmp_path / "set"), DATA, PICTURES)
    assert str(caught.value) == (
        "The data set set has nothing to train on. 1 of 2 left out: it has fewer frames than a clip of 5, one by "
        "one, takes (a.mp4). 1 of 2 left out: it has no caption (b.mp4)."
    )


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a bird flies LEFT", True),
        ("panning over hills", True),
        ("turns counter-clockwise", True),
        ("rightwards", True),
        ("a panda with a roller", False),
        ("bright leftovers", False),
        (None, False),
    ],
)
def test_captions_that_name_a_side(tmp_path, caption, named):
    film(tmp_path, "a", count=1, caption=caption)
    assert directional(the_item(tmp_path)) == named


def test_a_file_shorter_than_all_that_a_model_takes(tmp_path):
    """One whose latent frames come in pairs: five frames at least."""
    film(tmp_path, "short", count=4)
    film(tmp_path, "long", count=5)
    data = replace(DATA, frames=13, token_size=32)
    plan = plan_cuts(read_items(tmp_path), data, VOLUMES, fits=lambda latent_frames: latent_frames % 2 == 0)
    assert [len(planned.frames) for planned in plan.cuts] == [5]
    assert [*plan.report.sentences()] == [
        "1 of 2 left out: it has fewer frames than the shortest clip of this model takes (short.mp4)."
    ]


def test_notes_on_what_is_used_otherwise(tmp_path):
    film(tmp_path, "a")
    even = lambda latent_frames: latent_frames % 2 == 0  # noqa: E731
    data = replace(DATA, width=64, height=64, frames=49)
    plan = plan_cuts(read_items(tmp_path), data, VOLUMES, fits=even)
    assert [*plan.report.sentences()] == [
        "Clips have 45 frames: this model does not take 49.",
        "1 of 1 enlarged: smaller than the size of the training.",
    ]
    assert len(plan.cuts[0].frames) == 45


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 16}, "got num_frames=16, use 13 or 17"),
        ({"width": 40}, "width must be a multiple of 16 pixels: got width=40"),
        ({"height": 8}, "16 pixels or more: got 32 and 8"),
        ({"stride": 0}, "stride must be 1 or more: got 0"),
        ({"variants": 0}, "variants must be 1 or more: got 0"),
        ({"fps": -1}, "fps must be 0 or more: got -1"),
        ({"start": 0.9, "end": 0.2}, "0 <= start < end <= 1: got 0.9 and 0.2"),
        ({"video_repeat": 0}, "video_repeat must be 1 or more: got 0"),
        ({"camera": "spin"}, "camera must be one of"),
        ({"camera": "pan_left", "flip": True}, "flip would turn the movement pan_left around"),
        ({"image_size": 16}, "image_size must be 0 or at least that of the clips, 32: got 16"),
    ],
)
def test_choices_that_cannot_be(tmp_path, change, words):
    """Before any file is opened: there is none."""
    with pytest.raises(ValueError, match=words):
        check_data(replace(DATA, **change), VOLUMES)


def test_a_file_that_breaks_off_meanwhile(tmp_path):
    film(tmp_path, "a")
    plan = plan_cuts(read_items(tmp_path), DATA, PICTURES)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(BadItem):
        cut(plan.cuts[0])
