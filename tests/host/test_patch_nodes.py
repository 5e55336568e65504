"""Every host node that takes a MODEL and gives one: as on the host's own network, no effect on either, or refused.

`patch_nodes.json` says which, for SVD and for CogVideoX; 0.16.3 has no CogVideoX of its own, there it is ours alone
that moves or not. Two further words: `raises` where the host's own network or node cannot take it either, and `only
ours` where the host's has no such weights.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kinetograph.tests.host import patch_bench
from kinetograph.tests.host.patch_inputs import Inputs
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
REFUSAL = re.compile(r"does not call (the (?:patch|object patch|replacement of) \S+?),? ")
# what a guider adds on its way can be refused only there
LATE = (
    "PerturbedAttentionGuidance",
    "SkipLayerGuidanceDiT",
    "SkipLayerGuidanceDiTSimple",
    "SkipLayerGuidanceSD3",
)


@dataclass(frozen=True)
class Ran:
    """What came of one node on one MODEL: latents or an error, how far they moved, and calls of the network."""

    latents: torch.Tensor | None
    error: Exception | None
    moved: float
    calls: int


class Stage:
    """Both networks of a family, what they give without any node, and what nodes make of them."""

    def __init__(self, pair):
        self.pair, self.inputs, self.plain = pair, Inputs(pair), {}

    def ran(self, name, kind, model):
        settings, calls = RUNS.get(name, {}), []
        network = model.model.diffusion_model
        counter = network.register_forward_pre_hook(lambda *_: calls.append(1))
        latents, error = None, None
        # compiled code takes minutes; that it is put in place and taken out again is seen without
        stance = torch.compiler.set_stance("force_eager")
        try:
            with stance:
                given = self.inputs.of(name, patch_bench.inputs_of(kind), model)
                latents = self.pair.sample(patch_bench.apply(kind, given), **settings)
        except Exception as raised:
            error = raised
        finally:
            counter.remove()
        moved = relative(latents, self.without(model, settings)) if latents is not None else 0.0
        return Ran(latents, error, moved, len(calls))

    def without(self, model, settings):
        key = (type(model.model).__name__, *settings.items())
        if key not in self.plain:
            self.plain[key] = self.pair.sample(model, **settings)
        return self.plain[key]

    def outcome(self, name, kind):
        """The word for the table, from the MODEL that the node makes of each."""
        ours = self.ran(name, kind, self.pair.ours)
        if refused := REFUSAL.search(str(ours.error)):
            assert isinstance(ours.error, ValueError) and (ours.calls > 0) is (name in LATE)
            return f"refused: {refused[1]}"
        theirs = self.ran(name, kind, self.pair.theirs) if self.pair.theirs else ours
        if ours.error or theirs.error:
            return "raises" if ours.error and theirs.error else f"{ours.error} / {theirs.error}"
        bound = (
            HALF
            if name == "ModelComputeDtype"
            else ONE_STEP
            if "steps" not in RUNS.get(name, {})
            else THREE_STEPS
        )
        apart = relative(ours.latents, theirs.latents)
        if apart <= bound and ours.moved > MOVED and theirs.moved > MOVED:
            return "as host"
        if ours.moved <= STILL and theirs.moved <= STILL:
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_node_does_what_is_written(nodes, stages, name, family):
    if name in nodes:
        assert stages[family].outcome(name, nodes[name]) == TABLE[name][family]
