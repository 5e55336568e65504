"""What a training builds of a MODEL says what the MODEL says when it is sampled, and can be trained."""

import pytest
import torch

from kinetograph.modules.training.recipe import Data, Files, PartChoice, Recipe
from kinetograph.modules.training.trained import trained_of
from kinetograph.tests import motion_files
from kinetograph.tests.host.motion_bench import SIZE, Calls, MotionBench
from kinetograph.tests.host.workbench import relative

pytestmark = pytest.mark.newest

FRAMES = 4


def recipe(part, **choice):
    return Recipe("tiny", Files("none"), PartChoice(part, **choice), Data("none", SIZE, SIZE))


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return MotionBench(base)


def subject_of(model, wish):
    from kinetograph.nodes.pipeline import subjects

    subjects.check_part(model, wish)
    with torch.inference_mode(False):
        return subjects.subject_of(model, wish, torch.float32)


@pytest.fixture(scope="module", params=["v1", "v2", "v3", "SDXL beta"])
def moving(bench, request):
    """(MODEL with motion modules, one call of its network while it was sampled)."""
    base = bench.base(request.param)
    motion_files.randomise(base.model.diffusion_model, 5)
    model = bench.move(base, request.param, num_frames=FRAMES)
    calls = Calls(model)
    bench.ksampler(calls.model, bench.empty(FRAMES), steps=1)
    return model, calls.seen[0]


def test_pictures_with_motion_are_what_is_sampled(moving):
    """Each release with its own norms over frames and clips."""
    model, call = moving
    subject = subject_of(model, recipe("motion_lora", rank=2, alpha=2))
    assert subject.frames_on_batch and subject.takes_pooled == (call["y"] is not None)
    with torch.inference_mode(False), torch.no_grad():
        told = {
            name: None if call[name] is None else call[name].clone()
            for name in ("x", "timestep", "context", "y")
        }
        out = subject.network(told["x"], told["timestep"], told["context"], FRAMES, told["y"])
    assert relative(out, call["out"]) < 5e-6


def test_gradients_reach_motion_lora(moving):
    model, call = moving
    wish = recipe("motion_lora", rank=2, alpha=2)
    with torch.inference_mode(False):
        subject = subject_of(model, wish)
        trained = trained_of(subject, wish)
        before = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
        told = {
            name: None if call[name] is None else call[name].clone()
            for name in ("x", "timestep", "context", "y")
        }
        subject.network(
            told["x"], told["timestep"], told["context"], FRAMES, told["y"]
        ).square().mean().backward()
    ups = [value for key, value in trained.items() if key.endswith("lora_up")]
    assert len(ups) >= 2 * 4 * 10 and all(up.grad is not None and up.grad.abs().sum() > 0 for up in ups)
    assert all(key.startswith("motion.") for key in trained)
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_sdxl_is_told_the_size_beside_its_text(bench):
    """As the host tells it when it samples: the pooled text, then sinusoids of the size."""
    base = bench.base("SDXL beta")
    motion_files.randomise(base.model.diffusion_model, 5)
    model = bench.move(base, "SDXL beta", num_frames=FRAMES)
    subject = subject_of(model, recipe("motion_lora", rank=2, alpha=2))
    seen = {}
    subject.network.unet.register_forward_pre_hook(
        lambda unet, args, named: seen.update(named), with_kwargs=True
    )
    pooled = torch.randn(1, 1280, generator=torch.Generator().manual_seed(2))
    x = torch.randn(FRAMES, 4, SIZE // 8, SIZE // 8)
    with torch.inference_mode(False), torch.no_grad():
        arguments = {"context": torch.randn(FRAMES, 5, 32), "frames": FRAMES, "pooled": pooled}
        subject.predict(x, torch.full((FRAMES,), 500.0), arguments)
        wanted = model.model.encode_adm(pooled_output=pooled, device="cpu", width=SIZE, height=SIZE)
    assert seen["y"].shape == (FRAMES, 2816) and torch.allclose(seen["y"][1], wanted[0])


def test_loras_of_the_model_are_merged_into_what_is_trained(bench):
    from kinetograph.nodes.pipeline import subjects

    model = bench.base("v2").clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    weight = model.model.state_dict()[key]
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    model.add_patches({key: ("diff", (change,))}, 0.5)
    with torch.inference_mode(False):
        subject = subjects.subject_of(model, recipe("domain_adapter", rank=2, alpha=2), torch.float32)
    own = subject.network.unet.state_dict()[key.removeprefix("diffusion_model.")]
    assert torch.allclose(own, weight + 0.5 * change, atol=1e-6)
    assert not torch.allclose(own, weight, atol=1e-3)


def test_a_model_without_motion_has_no_motion_lora(bench):
    with pytest.raises(ValueError, match="motion"):
        subject_of(bench.base("v2"), recipe("motion_lora"))
