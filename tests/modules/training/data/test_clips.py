"""Which frames make a clip: the specification's vectors, real files, and what the originals do wrong."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.modules.training.data import clips
from kinetograph.modules.training.data.footage import open_file, open_item
from kinetograph.modules.training.data.items import BadItem, Item
from kinetograph.tests.films import SIZE, numbers, run_ffmpeg, shots, write

ALMOST = 1 - 2**-53


def read(footage, frames):
    return torch.stack([*footage.read(frames)])


@pytest.mark.parametrize(
    ("there", "frames", "span"), [(300, 49, 145), (147, 49, 145), (144, 48, 142), (100, 33, 97), (30, 10, 28)]
)
def test_short_files_give_fewer_frames_at_the_right_speed(there, frames, span):
    """CogVideoX-Fun's vectors for 49 frames, stride 3; EasyAnimate's rule gives 49 slow ones each time."""
    assert clips.clip_frames(there, 49, 3) == frames
    chosen = clips.choose_frames(0, there, frames, 3, 0.0)
    assert len(chosen) == frames and chosen[-1] - chosen[0] + 1 == span
    assert {*np.diff(chosen)} == {3}


def test_no_frames_from_a_file_shorter_than_a_stride():
    assert clips.clip_frames(2, 49, 3) == 0


def test_starts_reach_both_ends_of_the_window():
    first, last = clips.window(100, 0.2, 0.9)
    assert (first, last) == (20, 90)
    starts = [clips.choose_frames(first, last, 16, 4, place)[0] for place in np.linspace(0, ALMOST, 200)]
    assert {*starts} == {*range(20, 30)}
    assert clips.choose_frames(first, last, 16, 4, ALMOST)[-1] == 89
    assert clips.choose_frames(0, 100, 16, 4, 7 / 40) == [*range(7, 68, 4)]


def test_stride_comes_from_the_files_own_rate():
    assert [clips.stride_of(2, fps, 30.0) for fps in (0, 8, 10, 20, 30, 60)] == [2, 4, 3, 2, 1, 1]


def test_lengths_of_random_frames():
    lengths, weights = clips.random_lengths("easyanimate", 16)
    assert lengths == [4, 8, 12, 16] and weights == [0.1, 0.2, 0.3, 0.4]
    lengths, weights = clips.random_lengths("fun", 49)
    assert lengths == [*range(5, 50, 4)] and weights[-1] == 0.9 and sum(weights) == pytest.approx(1)
    assert clips.random_lengths("fun", 5) == ([5], [1.0])
    drawn = [clips.random_length("fun", 49, index, 0, 1) for index in range(400)]
    assert 0.85 < drawn.count(49) / 400 < 0.95 and {*drawn} <= {*lengths}
    assert drawn == [clips.random_length("fun", 49, index, 0, 1) for index in range(400)]
    assert clips.random_length("none", 49, 0, 0, 1) == 49 and clips.random_length("fun", 1, 0, 0, 1) == 1


@pytest.mark.parametrize("b_frames", [False, True])
def test_only_the_frames_of_the_clip_come(tmp_path, b_frames):
    path = write(tmp_path / "a.mp4", shots(60), 24, b_frames=b_frames)
    footage = open_file(path, "video")
    assert (footage.num_frames, footage.width, footage.height, footage.rate) == (60, *SIZE, 24.0)
    frames = read(footage, [13, 14, 20, 59])
    assert frames.dtype == torch.uint8 and frames.shape == (4, SIZE[1], SIZE[0], 3)
    assert numbers(frames) == [13, 14, 20, 59]


def test_frames_go_by_number_where_their_times_are_uneven(tmp_path):
    """A telephone's film: frames of unequal length, some dropped."""
    times = [index + index // 5 + (index % 3 == 1) * 0.4 for index in range(30)]
    ticks = [round(time * 1000) for time in times]
    path = write(tmp_path / "a.mp4", shots(30), 24, times=ticks, tick=Fraction(1, 24000))
    footage = open_file(path, "video")
    assert footage.num_frames == 30 and numbers(read(footage, [4, 7, 11, 29])) == [4, 7, 11, 29]


def test_a_picture_is_turned_upright(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = (200, 20, 60)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    footage = open_file(str(tmp_path / "a.png"), "image")
    assert (footage.num_frames, footage.width, footage.height, footage.rate) == (1, 20, 40, None)
    assert torch.equal(read(footage, [0])[0], torch.from_numpy(np.rot90(pixels, -1).copy()))


@pytest.mark.parametrize(("kind", "word"), [("video", "video"), ("image", "picture")])
def test_what_cannot_be_read(tmp_path, kind, word):
    path = tmp_path / "a"
    path.write_bytes(b"not what its name says" * 20)
    with pytest.raises(BadItem, match=f"cannot be read as a {word}"):
        open_file(str(path), kind)


def test_a_file_that_breaks_off(tmp_path):
    """Its list of frames stands at the front, so that it opens: the frames that are there count."""
    whole = write(
        tmp_path / "whole.mp4", np.random.default_rng(1).integers(0, 255, (40, 64, 64, 3), np.uint8)
    )
    run_ffmpeg("-i", whole, "-c", "copy", "-movflags", "faststart", tmp_path / "a.mp4")
    cut = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(cut[: len(cut) // 2])
    footage = open_file(str(tmp_path / "a.mp4"), "video")
    assert 5 < footage.num_frames < 35
    # of the last there is a part
    last = footage.num_frames - 1
    assert len(read(footage, [0, last - 1])) == 2
    with pytest.raises(BadItem, match="breaks off, is damaged or was changed"):
        read(footage, [0, last])


def test_a_file_that_was_changed_meanwhile(tmp_path):
    path = write(tmp_path / "a.mp4", shots(20), 24)
    footage = open_file(path, "video")
    write(tmp_path / "a.mp4", shots(30), 24)
    with pytest.raises(BadItem, match="was changed"):
        read(footage, [0])


def test_pictures_of_16_bits(tmp_path):
    """PIL would take all of their light for white."""
    Image.fromarray(np.full((32, 32), 3000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadItem, match="more than 8 bits a colour"):
        open_file(str(tmp_path / "a.png"), "image")


def test_a_part_of_a_video(tmp_path):
    path = write(tmp_path / "a.mp4", shots(60), 24)
    part = open_file(path, "video", 1.0, 0.5)
    assert part.num_frames == 12 and numbers(read(part, [0, 11])) == [24, 35]


def test_frames_are_decoded_when_somebody_wants_them(tmp_path):
    """So that a clip of large frames is never held whole: the first comes, though the last is broken off."""
    path = write(tmp_path / "a.mp4", shots(60), 24)
    frames = open_file(path, "video").read([2, 59])
    assert numbers(next(frames)[None]) == [2]


def test_pictures_below_16_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((40, 15, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(BadItem, match="less than 16 pixels"):
        open_item(Item(0, "a.png", "image", "x", str(tmp_path / "a.png")))
