"""Data sets in the users' formats: each gives its items, and a bad item is counted and never hidden."""

import json

import numpy as np
import pytest
from PIL import Image

from kinetograph.modules.training.data.formats import format_of, read_items
from kinetograph.modules.training.data.items import rows


def lay(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(path)
        else:
            path.write_bytes(b"only its name counts here")
    return root


def dump(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


def brief(dataset):
    return [(item.name, item.kind, item.text) for item in dataset.items]


@pytest.mark.parametrize("place", ["videos/7.mp4", "7.mp4", "videos/00/7.mp4", "00/7.mp4"])
def test_webvid(tmp_path, place):
    """A quoted caption with a comma, and the mark that Excel puts before UTF-8."""
    lay(tmp_path, place, "videos/8.mp4")
    text = 'videoid,name,page_dir\n7,"a red, round ball",00\n8,zwei Bälle,01\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8-sig")
    assert format_of(tmp_path) == "webvid"
    found = read_items(tmp_path)
    assert brief(found) == [(place, "video", "a red, round ball"), ("videos/8.mp4", "video", "zwei Bälle")]


def test_normal(tmp_path):
    """Sizes that the list names, even wrong ones, leave no item out (CogVideoX-Fun's sampler does)."""
    lay(tmp_path, "clips/a.mp4", "b.png", "pose.mp4")
    entries = [
        {
            "file_path": "clips/a.mp4",
            "text": "a",
            "type": "video",
            "width": 9999,
            "height": 1,
            "control_file_path": "pose.mp4",
        },
        {"file_path": "b.png", "text": "b", "type": "image"},
        {"file_path": "b.png", "text": "b"},
    ]
    dump(tmp_path / "data.json", entries)
    assert format_of(tmp_path) == "normal"
    found = read_items(tmp_path)
    assert brief(found) == [("clips/a.mp4", "video", "a"), ("b.png", "image", "b"), ("b.png", "image", "b")]
    assert found.items[0].control == str(tmp_path / "pose.mp4") and found.items[1].control == ""


def test_a_clip_may_tell_its_own_motion_bucket(tmp_path):
    lay(tmp_path, "a.mp4")
    told = [{}, {"motion_bucket_id": 0}, {"motion_bucket_id": 171.5}]
    wrong = [{"motion_bucket_id": value} for value in (-1, 256, "fast", True)]
    dump(tmp_path / "data.json", [{"file_path": "a.mp4", "text": "a", **words} for words in told + wrong])
    found = read_items(tmp_path)
    assert [item.bucket for item in found.items] == [None, 0.0, 171.5]
    assert len(found.report.problems) == len(wrong)
    assert all("from 0 to 255" in problem.reason for problem in found.report.problems)


@pytest.mark.parametrize("below", ["", "train/"])
def test_diffusers(tmp_path, below):
    lay(tmp_path, f"{below}0.png", f"{below}deep/1.png")
    lines = [{"file_name": "0.png", "text": "null"}, {"file_name": "deep/1.png", "text": "eins"}]
    (tmp_path / below / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert format_of(tmp_path) == "diffusers"
    assert brief(read_items(tmp_path)) == [
        (f"{below}0.png", "image", "null"),
        (f"{below}deep/1.png", "image", "eins"),
    ]


def test_captions_with_repeats(tmp_path):
    """As ComfyUI's own node reads folders; what is neither clip nor picture is no item."""
    lay(
        tmp_path, "a.mp4", "a.txt", "notes.md", "3_style/b.MP4", "3_style/c.png", "plain/d.mp4", "0_out/e.mp4"
    )
    lay(tmp_path, "plain/deep/f.mp4", ".thumbnails/a.png", "plain/._d.mp4")
    (tmp_path / "linked").symlink_to(tmp_path / "plain", target_is_directory=True)
    (tmp_path / "a.txt").write_text(" ein Wort \n")
    (tmp_path / "3_style" / "b.txt").write_text("zwei")
    assert format_of(tmp_path) == "captions"
    found = read_items(tmp_path)
    assert brief(found) == [
        ("3_style/b.MP4", "video", "zwei"),
        ("3_style/c.png", "image", None),
        ("a.mp4", "video", "ein Wort"),
        ("plain/d.mp4", "video", None),
    ]
    assert [item.repeat for item in found.items] == [3, 3, 1, 1]
    assert found.report.counts == {
        "its folder's name says 0 times": 1,
        "it lies more than one folder below the data folder": 1,
        "it is a link to a folder, which is not followed": 1,
    }


def test_one_caption_that_is_no_text(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    found = read_items(tmp_path)
    assert brief(found) == [("b.mp4", "video", None)]
    assert [*found.report.sentences()] == ["1 of 2 left out: its caption is not text in UTF-8 (a.mp4)."]


def test_paths(tmp_path):
    lay(tmp_path, "a.mp4", "b.mp4")
    dump(tmp_path / "metadata.json", [{"path": "a.mp4"}, {"path": "b.mp4", "text": "b"}])
    dump(tmp_path / "workflow.json", {"no": "list"})
    assert format_of(tmp_path) == "paths"
    assert brief(read_items(tmp_path)) == [("a.mp4", "video", None), ("b.mp4", "video", "b")]


def test_a_video_counts_once_whatever_else_lies_there(tmp_path):
    """EasyAnimate counts a video among the pictures too: 2 items give 3; Fun's default repeat of 0 drops it."""
    lay(tmp_path, "a.mp4", "b.png")
    dump(tmp_path / "data.json", [{"file_path": name, "text": "x"} for name in ("a.mp4", "b.png")])
    items = read_items(tmp_path).items
    assert [item.name for item in rows(items)] == ["a.mp4", "b.png"]
    assert [item.name for item in rows(items, video_repeat=3)] == ["a.mp4"] * 3 + ["b.png"]
    with pytest.raises(ValueError, match="video_repeat must be 1 or more: got 0"):
        rows(items, video_repeat=0)


def test_bad_items_are_counted_and_named(tmp_path):
    lay(tmp_path / "set", "good.png", "odd.xyz")
    lay(tmp_path, "secret.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "good.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        *map("{}.png".format, range(5)),
    ]
    entries = [{"file_path": name, "text": "x"} for name in names]
    entries += [{"file_path": "odd.xyz"}, {"text": "lost"}, 7, {"file_path": "good.png", "type": "sound"}]
    dump(tmp_path / "set" / "data.json", entries)
    found = read_items(tmp_path / "set")
    assert [(item.index, item.name) for item in found.items] == [(0, "good.png")]
    assert list(found.report.sentences()) == [
        f"3 of 13 left out: the file lies outside of the data folder (../secret.png, {tmp_path}/secret.png, link.png).",
        "5 of 13 left out: the file is not there (0.png, 1.png, 2.png and 2 more).",
        "1 of 13 left out: its name ends in .xyz, which is no video or picture that can be read (odd.xyz).",
        "2 of 13 left out: data.json names no file_path (entry 11, entry 12).",
        "1 of 13 left out: its type is 'sound', not video or image (good.png).",
    ]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "The data set set has nothing to train on. It holds no clip and no picture."),
        ({"a.csv": "videoid,page_dir\n1,0\n"}, "a.csv lacks the column name"),
        (
            {"a.csv": "", "b.csv": ""},
            r"must hold one \*.csv that lists its items, or metadata.csv: found a.csv, b.csv",
        ),
        ({"a.json": "[\n{]"}, "a.json is not JSON: .* in line 2"),
        ({"a.json": "{}"}, "a.json must be a list of items"),
        ({"metadata.jsonl": '{"file_name": "a.png"}\n{"file'}, "metadata.jsonl is not JSON: .* in line 2"),
        ({"a.json": '[{"file_path": "gone.mp4"}]'}, r"1 of 1 left out: the file is not there \(gone.mp4\)"),
        ({"a.csv": b"videoid,name\n1,\xff\n"}, "a.csv is not text in UTF-8"),
    ],
)
def test_what_cannot_be_a_data_set(tmp_path, files, words):
    root = tmp_path / "set"
    root.mkdir()
    for name, text in files.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words):
        read_items(root)


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match="There is no data folder .*gone"):
        read_items(tmp_path / "gone")
