"""A clip that is dropped on the page brings its graph back, in every format of which Video Combine's help says so."""

import json

import pytest

from kinetograph.modules.videofile.formats import FORMATS
from kinetograph.tests.browser.conftest import ROOT
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.test_video_combine import combine

TEMPLATE = "try_cogvideox"
# what the page takes for the files' kinds; gif and mkv keep their graph for other tools
KINDS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".webp": "image/webp"}
# others need hardware
KEPT = {form.name: form for form in FORMATS if form.suffix in KINDS and "nvenc" not in form.name}
EMPTY = {"nodes": [], "links": [], "version": 0.4}


@pytest.fixture(scope="module")
def clips(server):
    """{format: file} of one run with the template's graph in it."""
    graph = json.loads((ROOT / "workflows" / f"{TEMPLATE}.json").read_text(encoding="utf-8"))
    prompt = {"frames": node("EmptyImage", width=64, height=64, batch_size=2, color=0x336699)}
    prompt |= {name: combine(("frames", 0), name) for name in KEPT}
    result = server.client.run(prompt, workflow=graph)
    assert result.status == "success", result.message
    return {
        name: server.base / item["type"] / item["subfolder"] / item["filename"]
        for name in KEPT
        for item in result.outputs[name]["images"]
    }


@pytest.fixture(scope="module")
def one_tab(new_tab):
    tab = new_tab()
    yield tab
    tab.page.context.close()


@pytest.mark.parametrize("name", KEPT)
def test_a_dropped_clip_brings_its_graph_back(one_tab, clips, name):
    one_tab.open(TEMPLATE)
    whole = one_tab.ask("drawn")
    one_tab.ask("load", EMPTY, "empty")
    assert len(whole) > 5 and one_tab.ask("drawn") == {}
    one_tab.drop(clips[name].name, clips[name].read_bytes(), KINDS[clips[name].suffix])
    one_tab.page.wait_for_function(
        "(count) => app.graph._nodes.length === count && !app.isGraphLoading", arg=len(whole)
    )
    assert one_tab.ask("drawn") == whole
