"""The archive that the registry would hand out, unpacked into a bare ComfyUI: all nodes, all templates, a first video."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from kinetograph.tests import archive
from kinetograph.tools import prompts
from kinetograph.tools.server import PACK, Server

pytestmark = pytest.mark.newest

ROOT = archive.ROOT
IDS = json.loads((ROOT / "tests" / "node_ids.json").read_text())
TEMPLATES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A ComfyUI base directory with the archive's files among its custom nodes, and no models."""
    base = tmp_path_factory.mktemp("bare")
    file = archive.build(base / "node.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(file) as content:
        content.extractall(base / "custom_nodes" / PACK)
    file.unlink()
    return base


@pytest.fixture(scope="module")
def bare(host, unpacked):
    with Server(Path(sys.executable), host, unpacked) as server:
        yield server.client


def test_the_server_runs_the_archive(bare, unpacked):
    pack = unpacked / "custom_nodes" / PACK
    assert not pack.is_symlink() and not (pack / "tests").exists()


def test_every_node_is_there_with_its_help_page(bare):
    known = [name for name in bare.get_json("/object_info") if name.startswith("Kinetograph")]
    assert sorted(known) == sorted(IDS)
    assert all(bare.get(f"/extensions/{PACK}/docs/{name}.md").startswith(b"# ") for name in IDS)


def test_every_script_of_the_page_is_there(bare):
    ours = [name for name in bare.get_json("/extensions") if f"/{PACK}/" in name]
    assert len(ours) == len([*(ROOT / "web").rglob("*.js")]) > 0
    assert all(bare.get(name) for name in ours)


def test_every_template_is_there_with_its_picture(bare):
    assert sorted(bare.get_json("/workflow_templates")[PACK]) == TEMPLATES
    for name in TEMPLATES:
        assert json.loads(bare.get(f"/api/workflow_templates/{PACK}/{name}.json"))["nodes"]
        assert bare.get(f"/api/workflow_templates/{PACK}/{name}.jpg")[:3] == b"\xff\xd8\xff"


def test_every_pocket_model_can_be_chosen(bare):
    offered = json.dumps([info["input"] for info in bare.get_json("/object_info").values()])
    files = [path for path in (ROOT / "pocket" / "models").glob("*/*") if path.suffix in ("", ".safetensors")]
    assert len(files) > 8
    assert [path for path in files if f"{path.parent.name}/{path.name}" not in offered] == []


def test_a_first_video(bare):
    graph = prompts.read("try_cogvideox")
    prompts.only_node(graph, "KinetographVideoSampler")["inputs"]["steps"] = 2
    prompts.only_node(graph, "KinetographVideoLatent")["inputs"]["num_frames"] = 9
    result = bare.run(graph)
    assert result.status == "success", result.message
    assert [bare.view(file)[4:8] for file in result.files()] == [b"ftyp"]
