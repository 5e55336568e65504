"""Workflows that an earlier version saved open and run as they did: the same inputs, the same frames.

What a bit more or less means is for `python tools/pack.py kinetograph.tests.saved compare`, on one computer; here a
block's mean may leave its record by less than one level of 255.
"""

import copy
import json
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from kinetograph.tests.saved import frames, page, runs
from kinetograph.tools.commands import ROOT

NODES = json.loads((ROOT / "tests" / "node_ids.json").read_text())
API, GRAPHS = (runs.read_folder(runs.HERE / folder) for folder in ("api", "graphs"))
LAYOUT, RECORDS = (runs.read(runs.HERE / f"{name}.json") for name in ("layout", "frames"))
SHIPPED = sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))
# One workflow more: choices whose parts come only with the first word of a list.
FIRST_CHOICES = {"first_choices": ["VAEEncodeChunked.posterior", "VideoSampler.guidance"]}
# No pocket model takes the mask as latents, the other choice; the other way with captions needs packages that not
# everybody has; a camera movement is never mirrored.
ONLY_CHOICES = {
    "InpaintConditioning": ["InpaintConditioning.mode"],
    "PixArtLoader": ["PixArtLoader.captions"],
    "SaveTrained": ["TrainingData.flip"],
    "TrainVideoModel": ["TrainingData.flip"],
    "TrainingData": ["TrainingData.flip"],
}
SPREAD, MOTION = 5.0, 1.0  # levels of 255 in every frame, and between the frames of a clip


@pytest.fixture(scope="module")
def saved(host, tmp_path_factory):
    with runs.comfyui(host, tmp_path_factory.mktemp("saved")) as server:
        yield server


@pytest.fixture(scope="module")
def schemas(saved):
    return saved.client.get_json("/object_info")


@pytest.fixture(scope="module")
def results(saved, schemas):
    """A function that gives the Results of a saved workflow: as an API prompt, and as the page posts it where it adds
    inputs that came since. Each runs once."""

    @cache
    def of(name):
        drawn = page.to_prompt(GRAPHS[name], schemas)
        same = inputs_of(drawn) == inputs_of(API[name])
        prompts = [API[name]] if same else [API[name], drawn]
        return [run(prompt, GRAPHS[name]) for prompt in prompts]

    def run(prompt, graph):
        for place in ("temp", "output"):
            # files are numbered from 1 again
            shutil.rmtree(saved.base / place / "saved", ignore_errors=True)
        return frames.collect(saved.client, prompt, runs.run(saved.client, prompt, graph))

    return of


def inputs_of(prompt):
    return {number: (node["class_type"], node["inputs"]) for number, node in prompt.items()}


def ours(prompt):
    return {node["class_type"] for node in prompt.values() if node["class_type"].startswith(page.OURS)}


def test_every_node_was_saved():
    assert sorted({page.OURS + name for name in API} - {page.OURS + name for name in FIRST_CHOICES}) == NODES
    assert [
        name for name in API if name not in FIRST_CHOICES and page.OURS + name not in ours(API[name])
    ] == []
    assert sorted(API) == sorted(GRAPHS) and sorted(LAYOUT) == NODES
    assert all(sorted(record) == sorted(API) for record in RECORDS.values())


@pytest.mark.parametrize("name", API)
def test_no_widget_is_at_its_default(schemas, name):
    assert page.defaults_in(API[name], schemas) == {**FIRST_CHOICES, **ONLY_CHOICES}.get(name, [])


def check_posted(graph, prompt, schemas):
    """The page makes `prompt` of `graph`; a widget that came since may add an input that prompts may lack."""
    drawn = page.to_prompt(graph, schemas)
    titles = {str(node["id"]): node["title"] for node in graph["nodes"] if "title" in node}
    assert set(drawn) == set(prompt)
    for number, node in prompt.items():
        now, optional = drawn[number], schemas[node["class_type"]]["input"].get("optional", {})
        assert now["class_type"] == node["class_type"]
        assert node["_meta"]["title"] == titles.get(number, node["_meta"]["title"])
        assert {key: now["inputs"].get(key) for key in node["inputs"]} == node["inputs"]
        assert [key for key in now["inputs"] if key not in node["inputs"] and key not in optional] == []


@pytest.mark.parametrize("name", API)
def test_the_page_posts_what_it_posted(schemas, name):
    check_posted(GRAPHS[name], API[name], schemas)


@pytest.mark.parametrize("kind", NODES)
def test_nothing_that_is_saved_by_its_place_has_moved(schemas, kind):
    assert page.moved(LAYOUT[kind], page.layout_of(schemas[kind])) == []


@pytest.mark.parametrize("name", API)
def test_frames_are_those_of_the_earlier_version(saved, results, name):
    version = runs.version_of(saved.client)
    if version not in RECORDS:
        pytest.skip(f"nothing is recorded for ComfyUI {version}")
    assert [frames.differences(RECORDS[version][name], found) for found in results(name)] in ([[]], [[], []])


@pytest.mark.parametrize("name", API)
def test_frames_show_something(results, name):
    """Neither black nor constant, and not a still; a doctor shows words."""
    found, *_ = results(name)
    assert found.frames or any(found.texts.values())
    for clip_fhwc in found.frames.values():
        assert clip_fhwc.std((1, 2, 3)).min() > SPREAD
        assert clip_fhwc.std(0).max() > MOTION


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_graphs_are_read_as_the_page_reads_them(schemas, name):
    """The converter itself, on pairs that the page wrote and not on those of this folder."""
    graph, prompt = (runs.read(ROOT / folder / f"{name}.json") for folder in ("workflows", "workflows/api"))
    check_posted(graph, prompt, schemas)


def swapped(items, first, second):
    """A dictionary or list with two entries in each other's place."""
    order = list(items)
    order[first], order[second] = order[second], order[first]
    return {key: items[key] for key in order} if isinstance(items, dict) else order


def is_forced(spec):
    """Whether what could be a widget is a socket alone."""
    return bool(spec[1:] and spec[1].get("forceInput"))


@pytest.mark.parametrize("name", [name for name in API if name not in FIRST_CHOICES])
def test_a_moved_widget_is_seen(schemas, name):
    """Any two neighbours, from the layout and from the prompt; two of one value are the same to the page."""
    kind = page.OURS + name
    inputs = schemas[kind]["input"]["required"]
    widgets = [i for i, spec in enumerate(inputs.values()) if spec[0] in page.WIDGETS and not is_forced(spec)]
    for first, second in zip(widgets, widgets[1:], strict=False):
        after = copy.deepcopy(schemas)
        after[kind]["input"]["required"] = swapped(inputs, first, second)
        assert page.moved(LAYOUT[kind], page.layout_of(after[kind])) != []
        (node,) = (node for node in API[name].values() if node["class_type"] == kind)
        values = [node["inputs"][list(inputs)[place]] for place in (first, second)]
        same = page.to_prompt(GRAPHS[name], after) == page.to_prompt(GRAPHS[name], schemas)
        assert same == (values[0] == values[1])


@pytest.mark.parametrize("kind", NODES)
def test_a_moved_output_or_a_lost_choice_is_seen(schemas, kind):
    now = page.layout_of(schemas[kind])
    assert page.moved({**now, "outputs": [*now["outputs"], ["INT", "lost"]]}, now) != []
    if len(now["outputs"]) > 1:
        assert page.moved(now, {**now, "outputs": swapped(now["outputs"], 0, 1)}) != []
    for name in now["inputs"]:
        fewer = {key: what for key, what in now["inputs"].items() if key != name}
        assert page.moved(now, {**now, "inputs": fewer}) != []
    grown = {**now["inputs"], "later": "INT"}
    assert page.moved(now, {"inputs": grown, "outputs": [*now["outputs"], ["INT", "later"]]}) == []


def test_a_part_of_a_choice_moves_what_stands_behind_it(schemas):
    now = page.layout_of(schemas["KinetographVideoCombine"])
    after = copy.deepcopy(now)
    after["inputs"]["format"]["image/webp"]["later"] = "BOOLEAN"
    assert len(page.moved(now, after)) == 1
    after = copy.deepcopy(now)
    after["inputs"]["format"]["later"] = {"part": "INT"}
    assert page.moved(now, after) == []


class TestRecords:
    """What frames.json keeps tells one result from another."""

    def results(self, shift=0.0):
        picture = np.random.default_rng(0).integers(0, 250, (2, 16, 24, 3)) + shift
        text = "2 chunks, ratio 0.9\nsecond line"
        return frames.Results({"7": picture.astype(np.uint8)}, {"8": text}, {"9": {"rate": "8"}})

    def test_the_same_is_the_same(self):
        record = json.loads(json.dumps(frames.to_record(self.results())))
        assert frames.differences(record, self.results()) == []
        assert self.results().digest() == self.results().digest()

    def test_two_levels_are_seen_and_one_pixel_in_the_hash(self):
        record = frames.to_record(self.results())
        (words,) = frames.differences(record, self.results(shift=2))
        assert "levels off" in words
        pixel = self.results()
        pixel.frames["7"][1, 0, 0, 0] ^= 1
        assert frames.differences(record, pixel) == []
        assert pixel.digest() != self.results().digest()

    @pytest.mark.parametrize(
        ("place", "key", "value"),
        [
            ("frames", "7", np.zeros((1, 16, 24, 3), np.uint8)),
            ("frames", "10", np.zeros((2, 16, 24, 3), np.uint8)),
            ("texts", "8", "2 chunks, ratio 1.9\nsecond line"),
            ("texts", "8", "3 chunks, ratio 0.9\nsecond line"),
            ("texts", "8", "2 chunks, ratio 0.9"),
            ("files", "9", {"rate": "9"}),
        ],
    )
    def test_what_changed_is_named(self, place, key, value):
        record, now = frames.to_record(self.results()), self.results()
        getattr(now, place)[key] = value
        assert len(frames.differences(record, now)) == 1

    def test_a_text_may_grow(self):
        record, now = frames.to_record(self.results()), self.results()
        now.texts["8"] = "before\n2 chunks, ratio 1.0\nbetween\nsecond line"
        assert frames.differences(record, now) == []
        record["texts"]["8"], now.texts["8"] = '{"keys": 1}', '{"keys": 1, "file": "x"}'
        assert frames.differences(record, now) == []
        now.texts["8"] = '{"keys": 2}'
        assert len(frames.differences(record, now)) == 1


def test_the_script_compares_two_runs(tmp_path):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text('{"0.30.0": {"saved/SVDLoader": "a", "shipped/svd": "b"}}')
    after.write_text('{"0.30.0": {"saved/SVDLoader": "a", "shipped/svd": "c"}}')
    script = [sys.executable, ROOT / "tools" / "pack.py", "kinetograph.tests.saved", "compare"]
    done = subprocess.run([*script, before, after], capture_output=True, text=True)
    assert done.returncode == 1 and "shipped/svd: b became c" in done.stdout
    assert "1 of 2 are equal" in done.stdout
    assert subprocess.run([*script, before, before], capture_output=True).returncode == 0
