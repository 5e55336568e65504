"""Notes inside a file: what a format cannot keep is left out and named, and never costs the clip."""

import json
import math

import pytest
import torch

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.formats import FORMATS, find_format
from kinetograph.modules.videofile.metadata import Notes, read_metadata, read_notes
from kinetograph.modules.videofile.readback import inspect
from kinetograph.modules.videofile.writer import Job, VideoWriter
from kinetograph.tests.clips import make_clip

SOFTWARE = [entry.name for entry in FORMATS if "nvenc" not in entry.name]
CIRCLE = []
CIRCLE.append(CIRCLE)
DEEP = json.loads("[" * 900 + "]" * 900)
ODD = {
    **{name: 1 for name in ("my notes", "größe", "encoder", "duration", "creation_time", "a:b", "Workflow")},
    **{name: 1 for name in ("", "tab\there", "nul\0", "\ud800", "x" * 300, "back\\", "[x]=;#", "日本")},
    "ENCODER": 2,
    "half a character": "\ud800",
}


def write(folder, name, notes, frames=3):
    with VideoWriter(Job(folder, "clip", parse_encoding(name, 8), notes=notes)) as writer:
        writer.write(make_clip(frames, 16, 16))
    return writer


@pytest.mark.parametrize("name", SOFTWARE)
def test_odd_names_cost_no_clip_and_what_is_lost_is_named(tmp_path, name):
    notes = read_notes({"1": {"inputs": {}}}, {**ODD, "workflow": {"nodes": []}})
    writer = write(tmp_path, name, notes)
    assert [path for path in tmp_path.iterdir()] == [writer.path] and inspect(writer.path).num_frames == 3
    kept = read_metadata(writer.path, find_format(name))
    assert (kept["prompt"], kept["workflow"]) == ('{"1": {"inputs": {}}}', '{"nodes": []}')
    lost = [key for key in ODD if kept.get(key, kept.get(key.lower())) != json.dumps(ODD[key])]
    assert {"", "nul\0", "\ud800", "x" * 300} <= set(lost)
    said = writer.said[0] if lost else ""
    assert [key for key in lost if f"{key[:60]!r} (" not in said] == []
    assert said.count(" (") == len(lost), said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["video/webm", "video/ffv1-mkv"])
def test_a_workflow_too_long_for_the_format_is_left_out_and_the_rest_stays(tmp_path, name):
    notes = read_notes({"1": {}}, {"workflow": "ü" * 4_000_000, "small": 1})
    writer = write(tmp_path, name, notes)
    kept = read_metadata(writer.path, find_format(name))
    assert (kept["prompt"], kept["small"]) == ('{"1": {}}', "1") and "workflow" not in kept
    assert "'workflow' (it has 24.0 MB, the format keeps 16.8)" in writer.said[0]
    assert inspect(writer.path).num_frames == 3


def test_the_longest_text_that_matroska_takes_comes_back(tmp_path):
    text = "x" * 2**24
    writer = write(tmp_path, "video/webm", Notes({"workflow": text}, {}))
    assert read_metadata(writer.path, find_format("video/webm"))["workflow"] == text and writer.said == []


def test_a_webp_holds_two_hundred_notes_the_workflow_first(tmp_path):
    notes = read_notes({}, {**{f"n{index}": index for index in range(250)}, "workflow": 7})
    writer = write(tmp_path, "image/webp", notes)
    kept = read_metadata(writer.path, find_format("image/webp"))
    assert len(kept) == 200 and kept["workflow"] == "7" and kept["n197"] == "197"
    assert "'n198' (image/webp has room for 200)" in writer.said[0] and "32 more" in writer.said[0]


@pytest.mark.parametrize("extra", [["a", "list"], "text", 7, [], torch.zeros(2)], ids=repr)
def test_what_is_no_dictionary_is_left_out_by_name(extra):
    notes = read_notes({"1": {}}, extra)
    assert notes.texts == {"prompt": '{"1": {}}'}
    assert f"a {type(extra).__name__} came" in notes.left_out["extra_pnginfo"]


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), b"bytes", {1, 2}, CIRCLE, {(1, 2): 3}, object()],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_no_json_are_left_out_by_name(value):
    notes = read_notes({"1": {}}, {"workflow": {"nodes": []}, "mine": value})
    assert set(notes.texts) == {"prompt", "workflow"} and notes.left_out == {
        "mine": "its value cannot be written as JSON"
    }


def test_the_prompt_that_ran_is_the_prompt_in_the_file():
    notes = read_notes({"1": {}}, {"prompt": "another", 7: "seven"})
    assert notes.texts["prompt"] == '{"1": {}}' and notes.left_out == {"prompt": "the name is taken"}


def test_nothing_to_keep_is_nothing_to_say(tmp_path):
    assert read_notes(None, None) == Notes({}, {}) and read_notes(None, {}) == Notes({}, {})
    assert json.loads(read_notes({}, {"deep": DEEP, "nan": [math.nan]}).texts["deep"]) == DEEP
    assert write(tmp_path, "video/h264-mp4", Notes({}, {})).said == []
