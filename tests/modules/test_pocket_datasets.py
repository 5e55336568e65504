"""The pocket worlds as folders: the drawn pixels, each format's own words, and a mark whose area is measured."""

import csv
import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.pocket import datasets
from kinetograph.pocket.mark import MARK, mark_area, put_mark, without_mark
from kinetograph.pocket.sd import world
from kinetograph.pocket.shapes import GROUND, draw_mask
from kinetograph.pocket.svd.world import TOP_SPEED

COUNT = 2


def pixels_of(path):
    if path.suffix == ".png":
        return torch.from_numpy(np.array(Image.open(path)))[None] / 255, None
    with av.open(str(path)) as film:
        rate = film.streams.video[0].average_rate
        return torch.stack(
            [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in film.decode()]
        ) / 255, rate


def files_of(folder):
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".mp4"))


@pytest.mark.parametrize("name", datasets.WORLDS)
def test_files_hold_what_was_drawn(name, tmp_path):
    chosen = datasets.WORLDS[name]
    datasets.write_folder(name, tmp_path, COUNT)
    assert len(files_of(tmp_path)) == COUNT
    for number, path in enumerate(files_of(tmp_path)):
        item = chosen.draw(chosen.first_seed + number)
        pixels, rate = pixels_of(path)
        assert pixels.shape == item.frames.shape and rate in (None, item.rate)
        assert (pixels - item.frames).abs().max() <= 0.51 / 255
        if item.control is not None:
            control, _ = pixels_of(tmp_path / "control" / path.name)
            assert (control - item.control).abs().max() <= 0.51 / 255


def captions_of(folder, format):
    """By the words of each format's own specification."""
    if format == "webvid":
        rows = csv.DictReader((folder / "metadata.csv").open(newline="", encoding="utf-8"))
        return {f"{row['videoid']}.mp4": row["name"] for row in rows}
    if format == "normal":
        rows = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        assert all(row["type"] == "video" and row["width"] == row["height"] == 64 for row in rows)
        return {row["file_path"]: row["text"] for row in rows}
    if format == "diffusers":
        rows = map(json.loads, (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
        return {row["file_name"]: row["text"] for row in rows}
    return {p.with_suffix(".mp4").name: p.read_text(encoding="utf-8").strip() for p in folder.glob("*.txt")}


@pytest.mark.parametrize("format", ["webvid", "normal", "diffusers", "captions"])
def test_captions_lie_where_each_format_has_them(format, tmp_path):
    datasets.write_folder("clips", tmp_path, COUNT, format)
    first = datasets.WORLDS["clips"].first_seed
    wanted = {f"{i:05d}.mp4": world.captioned(first + i).caption for i in range(COUNT)}
    assert captions_of(tmp_path, format) == wanted


def test_a_sliding_clip_tells_its_own_speed(tmp_path):
    datasets.write_folder("slides", tmp_path, 6)
    rows = json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))
    for row in rows:
        frames, _ = pixels_of(tmp_path / row["file_path"])
        cover = (frames - torch.tensor(GROUND)).norm(dim=-1)
        cover = cover * (cover > 0.02)
        at, mass = torch.arange(cover.shape[-1]) + 0.5, cover.sum((1, 2))
        centres = torch.stack([(cover.sum(1) * at).sum(1), (cover.sum(2) * at).sum(1)], 1) / mass[:, None]
        speed = float((centres[-1] - centres[0]).norm()) / (len(frames) - 1)
        assert speed == pytest.approx(TOP_SPEED * row["motion_bucket_id"] / 255, abs=0.02)


def test_half_of_the_clips_to_follow_are_called_something_else():
    first = datasets.WORLDS["scenes-control"].first_seed
    drawn = [(datasets.scene(first + i), datasets.silhouette(first + i)) for i in range(60)]
    assert all(torch.equal(plain.frames, led.frames) for plain, led in drawn)
    assert all(plain.caption.split()[1] == led.caption.split()[1] for plain, led in drawn)
    assert 15 <= sum(plain.caption != led.caption for plain, led in drawn) <= 40


def test_chalk_is_white_whatever_its_caption_names():
    drawn = [datasets.chalk(8_000_000 + i) for i in range(12)]
    assert len({item.caption.split()[1] for item in drawn}) > 3
    assert all(item.frames.amax((0, 1, 2)).sub(torch.tensor(MARK)).abs().max() < 1e-6 for item in drawn)


def test_the_mark_is_seen_whole_or_not_at_all():
    clips = [world.captioned(6_000_000 + i).clip for i in range(200)]
    covered = torch.stack([draw_mask(clip, 16)[:, :8, :8].mean() for clip in clips])
    assert covered.mean() < 0.005 and covered.max() < 0.2
    frames = datasets.clip(6_000_003).frames
    assert mark_area(frames) == 0 and mark_area(put_mark(frames)) == 1
    half = frames.clone()
    half[:8] = put_mark(frames)[:8]
    assert mark_area(half) == 0.5
    assert torch.equal(without_mark(put_mark(frames)), without_mark(frames))
    assert torch.equal(put_mark(frames)[:, 8:], frames[:, 8:]) and torch.equal(
        put_mark(frames)[:, :, 8:], frames[:, :, 8:]
    )
