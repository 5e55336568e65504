"""What a network would never call is refused by name, before the first step, in KSampler and Video Sampler alike."""

import pytest
import torch

from kinetograph.tests.host import wide_svd
from kinetograph.tests.host.workbench import Seen, SVDWorkbench, Workbench


@pytest.fixture(scope="module")
def benches(comfy_here):
    return {"svd": SVDWorkbench(), "cogvideox": Workbench()}


def sample(benches, family, model, **changes):
    """Run both samplers on a MODEL; returns how often its network was called."""
    bench, seen = benches[family], Seen(model)
    latent, calls = bench.empty(), []
    for sampler in (bench.ksampler, bench.sampler):
        with pytest.raises(ValueError) as caught:
            sampler(seen.model, latent, steps=1, **changes)
        calls.append(str(caught.value))
    return len(seen.calls), calls


def fresh(benches, family):
    return (benches[family].svd if family == "svd" else benches[family].shared)()[0].clone()


class Booster:
    """A node of another pack, as far as its patches tell."""

    def patch(self):
        def boost(*arguments):
            raise AssertionError("a patch that was refused ran")

        return boost


boost = Booster().patch()


class Alien(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(1, 1)


def patch(name):
    return lambda model: model.set_model_patch(boost, name)


def replace(name, *key):
    return lambda model: model.set_model_patch_replace(boost, name, *key)


def put(name, thing=boost):
    return lambda model: model.add_object_patch(name, thing)


MIDDLE = "diffusion_model.middle_block.1"
REFUSED = {
    "svd": {
        "the patch double_block": patch("double_block"),
        "the patch post_input": patch("post_input"),
        "the replacement of dit in block ('double_block', 3)": replace("dit", "double_block", 3),
        "the replacement of attn1 in block ('input', 3)": replace("attn1", "input", 3),
        "the replacement of attn2 in block ('middle', 0, 1)": replace("attn2", "middle", 0, 1),
        "the patch forward_timestep_embed_patch for layers of the class Alien": lambda model: (
            model.set_model_forward_timestep_embed_patch((Alien, boost))
        ),
        f"the object patch {MIDDLE}.transformer_blocks.1.attn1": put(f"{MIDDLE}.transformer_blocks.1.attn1"),
        f"the object patch {MIDDLE}.transformer_blocks.0.attn1.forward": put(
            f"{MIDDLE}.transformer_blocks.0.attn1.forward", Booster().patch
        ),
        f"the object patch {MIDDLE}": put(MIDDLE, Alien()),
        "the object patch params.default_ref_method": put("params.default_ref_method"),
        "the wrapper double_blocks": lambda model: model.add_wrapper_with_key("double_blocks", "them", boost),
    },
    "cogvideox": {
        "the patch attn1_patch": patch("attn1_patch"),
        "the patch output_block_patch": patch("output_block_patch"),
        "the patch middle_patch": patch("middle_patch"),
        "the replacement of attn1 in block ('middle', 0)": replace("attn1", "middle", 0),
        "the patch forward_timestep_embed_patch": lambda model: model.set_model_forward_timestep_embed_patch(
            (torch.nn.Module, boost)
        ),
        "the object patch diffusion_model.blocks.0": put("diffusion_model.blocks.0"),
    },
}
CASES = [(family, entry) for family, entries in REFUSED.items() for entry in entries]


@pytest.mark.parametrize("family, entry", CASES, ids=[f"{family}-{entry}" for family, entry in CASES])
def test_refused_before_the_first_step(benches, family, entry):
    model = fresh(benches, family)
    REFUSED[family][entry](model)
    calls, said = sample(benches, family, model)
    assert calls == 0
    maker = "Alien" if isinstance(model.object_patches.get(MIDDLE), Alien) else "Booster"
    for message in said:
        assert f"{entry}, set by {maker} (" in message and "take that node out of" in message


@pytest.mark.parametrize("family", REFUSED)
def test_an_entry_that_a_conditioning_brings_along(benches, family):
    """Hooks of the host add to transformer_options for one conditioning alone."""
    import comfy.hooks

    for scope in (comfy.hooks.EnumHookScope.AllConditioning, comfy.hooks.EnumHookScope.HookedOnly):
        hooks = comfy.hooks.HookGroup()
        hooks.add(
            comfy.hooks.TransformerOptionsHook({"patches": {"double_block": [boost]}}, hook_scope=scope)
        )
        conds = conditioned(benches, family, hooks=hooks)
        calls, said = sample(benches, family, fresh(benches, family), **conds)
        assert calls == 0 and all("the patch double_block, set by Booster" in each for each in said)


def conditioned(benches, family, **more):
    """Both conditionings, the positive one with more in it."""
    bench = benches[family]
    both = bench.condition(bench.empty()) if family == "svd" else (bench.text(), bench.text(""))
    return {"positive": [[both[0][0][0], {**both[0][0][1], **more}]], "negative": both[1]}


@pytest.mark.parametrize("carried", ["control", "gligen"])
def test_cogvideox_refuses_what_acts_inside_a_unet(benches, carried):
    from comfy.controlnet import ControlBase

    conds = conditioned(benches, "cogvideox", **{carried: ControlBase()})
    calls, said = sample(benches, "cogvideox", fresh(benches, "cogvideox"), **conds)
    assert calls == 0
    assert all(
        f"the {carried} of the positive conditioning" in each and "take the node" in each for each in said
    )


def test_what_a_guider_adds_on_its_way_is_refused_in_the_first_step(benches):
    """Perturbed-Attention Guidance patches in each step: nothing of it shows before."""
    model = wide_svd.patched(fresh(benches, "cogvideox"), "pag.PerturbedAttentionGuidance")
    _, said = sample(benches, "cogvideox", model)
    assert all(
        "replacement of attn1 in block ('middle', 0), set by PerturbedAttentionGuidance (" in each
        for each in said
    )


@pytest.mark.parametrize("name", ["freelunch.FreeU", "freelunch.FreeU_V2"])
def test_freeu_on_cogvideox_is_refused_not_a_key_error(benches, name):
    model = wide_svd.patched(fresh(benches, "cogvideox"), name)
    calls, said = sample(benches, "cogvideox", model)
    assert calls == 0 and all("the patch output_block_patch, set by FreeU" in each for each in said)


@pytest.mark.parametrize("family", REFUSED)
def test_notes_and_places_that_are_there_pass(benches, family):
    """Other keys of transformer_options, wrappers that the host calls, and layers of the class they replace."""
    model = fresh(benches, family)
    without = benches[family].sampler(model, benches[family].empty(), steps=1)
    changed, ran = model.clone(), []
    changed.set_model_rope_options(2.0, 0.0, 2.0, 0.0, 1.0, 0.0)
    changed.model_options["transformer_options"]["somebody"] = {"double_block": boost}
    changed.add_wrapper_with_key(
        "apply_model", "them", lambda run, *args, **kwargs: ran.append(1) or run(*args, **kwargs)
    )
    changed.add_object_patch("model_sampling", model.get_model_object("model_sampling"))
    place = "diffusion_model." + ("middle_block.1" if family == "svd" else "transformer_blocks.0")
    changed.add_object_patch(place, model.get_model_object(place))
    got = benches[family].sampler(changed, benches[family].empty(), steps=1)
    assert torch.equal(got, without) and ran
