"""Every node is on the server under its frozen id, and every input explains and bounds itself."""

import json
from pathlib import Path

import pytest

IDS = json.loads((Path(__file__).parents[1] / "node_ids.json").read_text())
MOST_INPUTS = 12
BOUNDED = ("INT", "FLOAT")
# What the page shows under Essentials, beside nodes of the host's own that do alike.
ESSENTIAL = {
    "KinetographFitVideo": "Video Tools",
    "KinetographLoRAStack": "Image Generation",
    "KinetographVAEDecodeToVideo": "Video Tools",
    "KinetographVideoCombine": "Video Tools",
    "KinetographVideoContinue": "Video Tools",
}


@pytest.fixture(scope="module")
def ours(server):
    everything = server.client.get_json("/object_info")
    return {name: info for name, info in everything.items() if name.startswith("Kinetograph")}


def inputs_of(info):
    """(name, kind, options) of every input, those inside a DynamicCombo too."""
    for group in ("required", "optional"):
        yield from walk(info["input"].get(group, {}))


def walk(inputs, prefix=""):
    for name, (kind, *rest) in inputs.items():
        options = rest[0] if rest else {}
        yield prefix + name, kind, options
        if kind == "COMFY_DYNAMICCOMBO_V3":
            for choice in options["options"]:
                for group in ("required", "optional"):
                    yield from walk(choice["inputs"].get(group, {}), f"{prefix}{name}.")


def test_ids_are_the_frozen_ones(ours):
    assert sorted(ours) == sorted(IDS)


def test_essential_nodes_stand_in_categories_of_the_host(server, ours):
    said = {name: info["essentials_category"] for name, info in ours.items() if info["essentials_category"]}
    assert said == ESSENTIAL
    everything = server.client.get_json("/object_info")
    known = {info.get("essentials_category") for name, info in everything.items() if name not in ours}
    assert set(ESSENTIAL.values()) <= known


@pytest.mark.parametrize("name", IDS)
def test_inputs_explain_and_bound_themselves(ours, name):
    info = ours[name]
    assert info["description"] and info["category"].startswith("kinetograph/")
    for place, kind, options in inputs_of(info):
        assert options.get("tooltip"), f"{name}.{place} has no tooltip"
        if kind in BOUNDED:
            assert "min" in options and "max" in options, f"{name}.{place} has no bounds"


@pytest.mark.parametrize("name", IDS)
def test_no_choice_brings_a_widget_that_the_page_adds_twice(ours, name):
    """Frontend 1.47.12: a graph with control_after_generate in a DynamicCombo loads with all values behind it moved."""
    places = [place for place, _, options in inputs_of(ours[name]) if options.get("control_after_generate")]
    assert [place for place in places if "." in place] == []


@pytest.mark.parametrize("name", IDS)
def test_a_node_has_few_inputs_and_explained_outputs(ours, name):
    info = ours[name]
    assert (
        sum(len(group) for group in info["input_order"].values()) - len(info["input"].get("hidden", {}))
        <= MOST_INPUTS
    )
    assert all(info["output_tooltips"]) and len(info["output_tooltips"]) == len(info["output"])


@pytest.mark.parametrize("name", IDS)
def test_help_page_is_served(client, name):
    page = client.get(f"/extensions/ComfyUI-Kinetograph/docs/{name}.md").decode()
    assert len(page) > 200
