"""Every shipped workflow runs on the real host as it is, with the pocket model, and keeps what it promises."""

import json
import shutil
from pathlib import Path

import av
import pytest

from kinetograph.tools import demo
from kinetograph.tools.server import Server

ROOT = Path(__file__).resolve().parents[2]
API = sorted((ROOT / "workflows" / "api").glob("*.json"))
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
STEPS = 2  # enough to go through every node; the demo runs them all


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pocket(host, tmp_path_factory):
    """A client of a server with the pocket models, and the pictures the workflows start from."""
    import sys

    base = tmp_path_factory.mktemp("pocket")
    with Server(Path(sys.executable), host, base, models=demo.MODELS) as server:
        for picture in (ROOT / "workflows").rglob("input/*"):
            shutil.copy(picture, base / "input" / picture.name)
        yield server


def test_there_is_one_workflow_per_task_in_both_forms():
    tasks = ["image_to_video", "text_to_video", "video_to_video"]
    assert [path.stem for path in API] == tasks
    assert [path.stem for path in TEMPLATES] == tasks
    assert [path.with_suffix(".jpg").exists() for path in TEMPLATES] == [True] * 3


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_api_prompt_runs_as_it_is(pocket, path):
    graph = read(path)
    for sampler in demo.nodes_of(graph, "KinetographVideoSampler"):
        sampler["inputs"]["steps"] = STEPS
    client = pocket.client
    result = client.run(graph)
    assert result.status == "success" and not result.node_errors, result.message
    (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    with av.open(pocket.base / "output" / file["subfolder"] / file["filename"]) as video:
        assert sum(1 for _ in video.decode(video=0)) > 1


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_served_and_uses_known_nodes(pocket, path):
    listed = pocket.client.get_json("/workflow_templates")
    assert path.stem in listed["ComfyUI-Kinetograph"]
    known = pocket.client.get_json("/object_info")
    kinds = {node["type"] for node in read(path)["nodes"]} - {"Note", "MarkdownNote", "Reroute"}
    assert kinds <= set(known)
    assert kinds == {node["class_type"] for node in read(ROOT / "workflows" / "api" / path.name).values()}
