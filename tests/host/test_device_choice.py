"""The host's nodes that put a MODEL, a CLIP or a VAE on a device (0.30), with ours.

cpu:0 and cpu:1 stand for cards: the host makes a second copy from the loader for the other one, as it would.
"""

import pytest
import torch

from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, relative, run

pytestmark = pytest.mark.newest  # 0.16.3 has no such nodes

OTHER = torch.device("cpu", 1)


@pytest.fixture(scope="module")
def benches(comfy_here):
    return {"cogvideox": Workbench(), "svd": SVDWorkbench()}


def elsewhere(patcher):
    """A patcher on the other device, as the nodes put it on a card."""
    from comfy_extras import nodes_multigpu

    return nodes_multigpu._retarget_patcher(patcher.clone(), OTHER, torch.device("cpu"))


def node(name, **inputs):
    from comfy_extras import nodes_multigpu

    return run(getattr(nodes_multigpu, f"Select{name}DeviceNode"), **inputs)[0]


def parts(benches, family):
    bench = benches[family]
    return bench, *(bench.shared() if family == "cogvideox" else bench.svd())


@pytest.mark.parametrize("family", ["cogvideox", "svd"])
@pytest.mark.parametrize("device", ["default", "cpu", "gpu:3"])
def test_a_model_samples_the_same_wherever_it_is_put(benches, family, device):
    bench, model, _, _ = parts(benches, family)
    latent = bench.empty()
    plain = bench.sampler(model, latent, steps=1)
    chosen = node("Model", model=model, device=device)
    assert chosen is not model and chosen.load_device == torch.device("cpu")
    assert torch.equal(bench.sampler(chosen, latent, steps=1), plain)


@pytest.mark.parametrize("family", ["cogvideox", "svd"])
def test_another_device_gets_a_model_of_its_own(benches, family):
    bench, model, _, vae = parts(benches, family)
    latent = bench.empty()
    few = {"steps": 2, "denoise": 0.4, "cfg": 2.5}
    plain = bench.sampler(model, latent, **few)
    moved = elsewhere(model)
    assert moved.load_device == OTHER and moved.model is not model.model
    # a copy rounds otherwise where a file's own bytes lay askew
    assert relative(bench.sampler(moved, latent, **few), plain) <= 1e-5
    patcher = elsewhere(vae.patcher)
    assert patcher.load_device == OTHER and patcher.model is not vae.first_stage_model
    same = zip(patcher.model.state_dict().items(), vae.first_stage_model.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in same)


def test_a_clip_and_a_vae_are_put_where_they_are_and_work(benches):
    bench, _, clip, vae = parts(benches, "cogvideox")
    prompt = bench.text()[0][0]
    for device in ("default", "cpu", "gpu:3"):
        chosen = node("CLIP", clip=clip, device=device)
        assert torch.equal(
            run(bench.host.CLIPTextEncode, clip=chosen, text="a red circle moving left")[0][0][0], prompt
        )
    frames = run(bench.host.VAEDecode, vae=vae, samples=bench.clip())[0]
    for device in ("default", "gpu:3"):
        chosen = node("VAE", vae=vae, device=device)
        assert torch.equal(run(bench.host.VAEDecode, vae=chosen, samples=bench.clip())[0], frames)
    moved = clip.clone()
    moved.patcher = elsewhere(clip.patcher)
    assert moved.patcher.load_device == OTHER and moved.patcher.model is not clip.cond_stage_model
