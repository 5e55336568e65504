"""Every host node that takes a MODEL and gives one: as on the host's own network, no effect on either, or refused.

`patch_nodes.json` says which, for SVD and for CogVideoX, and why where it is refused. Further words: `raises` where
the host's own network cannot take it either, `refused by the node` where the node itself sees that the network is
another, `only ours` where the host's has no such weights, `own names` where a merge for other networks goes by names of
blocks and finds those of the one or of the other, so that only one ratio for all blocks is as on the host's. Where the
host has no such network, 0.16.3 and CogVideoX, all that can be said of what moves ours is that it `acts`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kinetograph.tests.host import patch_bench
from kinetograph.tests.host.patch_inputs import MERGED, Inputs
from kinetograph.tests.host.workbench import relative

TABLE = json.loads(Path(__file__).with_name("patch_nodes.json").read_text())
FAMILIES = ("svd", "cogvideox")
# rounding: of one step with guidance, of three, and what counts as no effect and as one
ONE_STEP, THREE_STEPS, STILL, MOVED = 1e-5, 3e-5, 1e-5, 1e-4
HALF = 1e-2  # the rounding of half precision
RUNS = {
    "DifferentialDiffusion": {"masked": True},
    "EasyCache": {"steps": 3},
    "LazyCache": {"steps": 3},
    "SelfAttentionGuidance": {"clip": "square"},
}
REFUSAL = re.compile(r"does not call (the (?:patch|replacement of) \w+)|(context windows) of")
# what a guider adds on its way can be refused only there
# merging blocks of another family is the same as merging these two, up to the names: their weights tell
SAMPLED_MERGES = ("ModelMergeSimple", "ModelMergeBlocks")
LATE = (
    "PerturbedAttentionGuidance",
    "SkipLayerGuidanceDiT",
    "SkipLayerGuidanceDiTSimple",
    "SkipLayerGuidanceSD3",
)


@dataclass(frozen=True)
class Ran:
    """What came of one node on one MODEL: a result or an error, how far it moved, and calls of the network."""

    came: torch.Tensor | None
    error: Exception | None
    moved: float
    calls: int


class Stage:
    """Both networks of a family, what they give without any node, and what nodes make of them."""

    def __init__(self, pair):
        self.pair, self.inputs, self.plain = pair, Inputs(pair), {}

    def ran(self, name, kind, model, **more):
        settings, calls, came, error = RUNS.get(name, {}), [], None, None
        if self.pair.family == "svd" and name.startswith("ModelMerge") and name not in SAMPLED_MERGES:
            settings = {"merged": True}
        network = model.model.diffusion_model
        counter = network.register_forward_pre_hook(lambda *_: calls.append(1))
        try:
            given = self.inputs.of(name, patch_bench.inputs_of(kind), model, **more)
            came = self.result(patch_bench.apply(kind, given), **settings)
        except Exception as raised:
            error = raised
        finally:
            counter.remove()
        moved = 0.0 if came is None else relative(came, self.without(model, settings))
        return Ran(came, error, moved, len(calls))

    def result(self, model, merged=False, **settings):
        """Sampled latents, or the weights that a merge gives."""
        if merged:
            return self.pair.merged(model, MERGED[self.pair.family])
        # compiled code takes minutes; that it is put in place and taken out again is seen without
        with torch.compiler.set_stance("force_eager"):
            return self.pair.sample(model, **settings)

    def without(self, model, settings):
        """The same from the MODEL without the node."""
        key = (type(model.model).__name__, *settings.items())
        if key not in self.plain:
            self.plain[key] = self.result(model, **settings)
        return self.plain[key]

    def outcome(self, name, kind):
        """The word for the table, from the MODELs that the node makes of both."""
        ours = self.ran(name, kind, self.pair.ours)
        if refused := REFUSAL.search(str(ours.error)):
            assert isinstance(ours.error, ValueError) and (ours.calls > 0) is (name in LATE)
            return f"refused: {refused[1] or refused[2]}"
        if self.pair.theirs is None:
            return "raises" if ours.error else "acts" if ours.moved > MOVED else "no effect"
        theirs = self.ran(name, kind, self.pair.theirs)
        if ours.error and theirs.error:
            return "raises"
        if isinstance(ours.error, ValueError) and not ours.calls and theirs.moved <= STILL:
            return "refused by the node"
        if ours.error or theirs.error:
            return f"ours: {ours.error}, the host's: {theirs.error}"
        word = self.movement(name, ours, theirs)
        if name.startswith("ModelMerge") and word != "as host":
            even = (self.ran(name, kind, model, even=True) for model in (self.pair.ours, self.pair.theirs))
            return "own names" if self.movement(name, *even) == "as host" else word
        return word

    def movement(self, name, ours, theirs):
        bound = (
            HALF
            if name == "ModelComputeDtype"
            else THREE_STEPS
            if "steps" in RUNS.get(name, {})
            else ONE_STEP
        )
        apart = relative(ours.came, theirs.came)
        if apart <= bound and min(ours.moved, theirs.moved) > MOVED:
            return "as host"
        if max(ours.moved, theirs.moved) <= STILL:
            return "no effect"
        if theirs.moved <= STILL and ours.moved > MOVED:
            return "only ours"
        return f"moved by {ours.moved}, the host's by {theirs.moved}, {apart} apart"


@pytest.fixture(scope="module")
def nodes(comfy_here, host):
    return patch_bench.model_nodes(host)


@pytest.fixture(scope="module")
def version():
    import comfyui_version

    return comfyui_version.__version__


@pytest.fixture(scope="module")
def stages(comfy_here, base):
    return {"svd": Stage(patch_bench.svd_pair(base)), "cogvideox": Stage(patch_bench.cogvideox_pair(base))}


def test_every_node_is_listed(nodes, version):
    assert set(nodes) == {name for name, row in TABLE.items() if version in row["hosts"]}


def expected(name, family, version, pair):
    """What is written, in the words that a host without such a network has for it."""
    word = TABLE[name][family]
    word = word[version] if isinstance(word, dict) else word
    return "acts" if pair.theirs is None and word in ("as host", "only ours", "own names") else word


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_node_does_what_is_written(nodes, stages, version, name, family):
    if name in nodes:
        stage = stages[family]
        assert stage.outcome(name, nodes[name]) == expected(name, family, version, stage.pair)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_on_the_models(stages, family):
    stage = stages[family]
    for model in filter(None, (stage.pair.ours, stage.pair.theirs)):
        assert torch.equal(stage.without(model, {}), stage.result(model))
