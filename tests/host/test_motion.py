"""Motion Module Apply among the host's own nodes: samplers, LoRAs, ControlNets, EasyCache, batches of several clips."""

import pytest
import torch

from kinetograph.modules.families.animatediff import VERSIONS
from kinetograph.modules.families.animatediff.config import MotionConfig
from kinetograph.tests import motion_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.motion_bench import FOLDER, FRAMES, SIZE, Calls, MotionBench, bit_for_bit
from kinetograph.tests.host.state import write_lora
from kinetograph.tests.host.workbench import relative, run

LORA = "tiny-pictures.safetensors"


def but_newest(versions, kept):
    """Releases of which the older host need not tell but those kept."""
    return [v if v in kept else pytest.param(v, marks=pytest.mark.newest) for v in versions]


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return MotionBench(base)


@pytest.fixture(scope="module")
def plain(bench):
    """A small SD1.5 that nobody may leave a trace on."""
    return pictures.build("small")


@pytest.fixture(scope="module")
def moving(bench, plain):
    return bench.move(plain)


def noised(latent, count):
    """The same noise for a frame whatever batch it is in."""
    return {**latent, "batch_index": [*range(count)]}


def clip_of(latent, number, frames=FRAMES):
    place = slice(number * frames, (number + 1) * frames)
    return {
        **latent,
        "samples": latent["samples"][place],
        "batch_index": latent["batch_index"][place],
        "num_frames": frames,
    }


@pytest.mark.parametrize("version", but_newest(VERSIONS, ("v1", "SDXL beta")))
def test_both_samplers_give_the_same_bit_for_bit(bench, version):
    model = bench.base(version)
    moving = bench.move(model, version)
    sampled = bench.ksampler(moving, bench.empty(), steps=2)
    assert torch.equal(bench.sampler(moving, bench.empty(), steps=2), sampled)
    assert not torch.equal(bench.ksampler(model, bench.empty(), steps=2), sampled)


def test_frames_of_a_clip_know_of_one_another(bench, plain, moving):
    """Of frame 0: another last frame changes it through the motion modules, and not without them."""
    noise = torch.randn(FRAMES, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(1))
    changed = torch.cat([noise[:-1], -noise[-1:]])
    for model, differs in ((plain, False), (moving, True)):
        first, second = (
            bench.ksampler(model, {"samples": x}, steps=2, denoise=0.5)[0] for x in (noise, changed)
        )
        assert (relative(first, second) > 1e-3) is differs


def test_no_strength_is_no_motion(bench, plain):
    still = bit_for_bit(bench.move(plain, strength=0.0, beta_schedule="use existing"))
    assert torch.equal(bench.ksampler(still, bench.empty()), bench.ksampler(plain, bench.empty()))


@pytest.mark.parametrize("version", but_newest(("v1", "v2", "SDXL beta"), ("v1",)))
def test_clips_of_a_batch_are_each_as_alone(bench, version):
    model = bench.base(version) if version == "SDXL beta" else pictures.build("small")
    batch = noised(bench.empty(clips=2), 2 * FRAMES)
    one = bench.move(model, version)
    several = bench.move(model, version, num_frames=FRAMES)
    alone = torch.cat([bench.ksampler(one, clip_of(batch, number), steps=2) for number in range(2)])
    together = bench.ksampler(several, batch, steps=2)
    assert relative(together, alone) <= 1e-4
    # Video Sampler reads it off the latent, whatever the node says
    assert torch.equal(bench.sampler(one, batch, steps=2), together)
    assert torch.equal(bench.sampler(bench.move(model, version, num_frames=2), batch, steps=2), together)
    assert relative(bench.ksampler(one, batch, steps=2), alone) > 1e-2


def test_a_batch_that_is_no_whole_clips_is_refused(bench, plain):
    with pytest.raises(ValueError, match="10 frames, which are no clips of 4"):
        bench.ksampler(bench.move(plain, num_frames=4), bench.empty(clips=2), steps=1)


def test_guidance_in_two_calls_is_as_in_one(bench, moving):
    """The host calls a network once for each conditioning where memory is short."""
    from comfy.patcher_extension import WrappersMP

    def apart(executor, model, conds, x, *args):
        return [executor(model, [cond], x, *args)[0] for cond in conds]

    split = moving.clone()
    split.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", apart)
    expected = bench.ksampler(moving, bench.empty(), steps=2)
    assert relative(bench.ksampler(split, bench.empty(), steps=2), expected) <= 1e-4


@pytest.fixture(scope="module")
def lora(bench, plain, base):
    (base / "models" / "loras").mkdir(exist_ok=True)
    write_lora(plain.model.diffusion_model.state_dict(), base / "models" / "loras" / LORA)

    def apply(model):
        return run(bench.host.LoraLoaderModelOnly, model=model, lora_name=LORA, strength_model=0.5)[0]

    return apply


def test_a_lora_of_another_node_acts_before_and_after(bench, plain, moving, lora):
    both = bench.ksampler(lora(moving), bench.empty(), steps=2)
    assert torch.equal(bench.ksampler(bench.move(lora(plain)), bench.empty(), steps=2), both)
    assert relative(bench.ksampler(moving, bench.empty(), steps=2), both) > 1e-3
    still = bit_for_bit(bench.move(lora(plain), strength=0.0, beta_schedule="use existing"))
    assert torch.equal(bench.ksampler(still, bench.empty()), bench.ksampler(lora(plain), bench.empty()))


@pytest.fixture(scope="module")
def control(bench):
    """A function that puts a tiny ControlNet of the host, with a picture for each frame, on both conditionings."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops

    from kinetograph.tests import tiny

    told = {
        key: value for key, value in pictures.SMALL.items() if "output" not in key and key != "out_channels"
    }
    made = comfy.cldm.cldm.ControlNet(
        **told, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    tiny.randomise(made, 4)
    device = comfy.model_management.get_torch_device()
    net = comfy.controlnet.ControlNet(made, load_device=device)
    hint = torch.rand(FRAMES, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(6))
    positive, negative = run(
        bench.host.ControlNetApplyAdvanced,
        **dict(zip(("positive", "negative"), pictures.prompts(), strict=True)),
        **{"control_net": net, "image": hint, "strength": 0.1, "start_percent": 0.0, "end_percent": 1.0},
    )
    return {"positive": positive, "negative": negative}


def test_a_control_net_of_the_host_acts(bench, plain, moving, control):
    guided = bench.ksampler(moving, bench.empty(), steps=2, **control)
    assert torch.equal(bench.sampler(moving, bench.empty(), steps=2, **control), guided)
    assert relative(bench.ksampler(moving, bench.empty(), steps=2), guided) > 1e-3
    still = bit_for_bit(bench.move(plain, strength=0.0, beta_schedule="use existing"))
    without = bench.ksampler(plain, bench.empty(), steps=2, **control)
    assert torch.equal(bench.ksampler(still, bench.empty(), steps=2, **control), without)
    assert relative(without, guided) > 1e-3


@pytest.mark.newest
def test_easy_cache_spares_calls(bench, moving):
    nodes = pytest.importorskip("comfy_extras.nodes_easycache")
    told = {"start_percent": 0.1, "end_percent": 0.95, "verbose": False}
    usual = Calls(moving)
    expected = bench.ksampler(usual.model, bench.empty(), steps=8)
    for threshold, spared in ((0.0, False), (3.0, True)):
        (cached,) = run(nodes.EasyCacheNode, model=moving, reuse_threshold=threshold, **told)
        calls = Calls(cached)
        got = bench.ksampler(calls.model, bench.empty(), steps=8)
        assert got.isfinite().all() and (relative(got, expected) <= 1e-5) is not spared
        assert (len(calls.seen) < len(usual.seen)) is spared
    assert torch.equal(bench.ksampler(moving, bench.empty(), steps=8), expected)


@pytest.mark.newest
def test_a_compiled_model_gives_the_same(bench):
    """Traced by dynamo and run as it was traced: a UNet of one level, which is traced soonest."""
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    sizes = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1]}
    model = pictures.build("small", **sizes, transformer_depth_output=[1] * 2)
    motion_files.write(bench.folder / "single-v3.safetensors", MotionConfig((32,), layers=1))
    moving = bench.move(model, "v3", motion_module=f"{FOLDER}/single-v3.safetensors")
    expected = bench.ksampler(moving, bench.empty(), steps=1)
    compiled = moving.clone()
    helpers.set_torch_compile_wrapper(model=compiled, backend="eager", options=None)
    assert relative(bench.ksampler(compiled, bench.empty(), steps=1), expected) <= 1e-4
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 100
    assert torch.equal(bench.ksampler(moving, bench.empty(), steps=1), expected)


SCHEDULES = {
    "as trained": ("linear", 0.012),
    "sqrt_linear (AnimateDiff)": ("linear", 0.012),
    "linear (AnimateDiff-SDXL)": ("scaled_linear", 0.020),
    "linear (HotshotXL/default)": ("scaled_linear", 0.012),
    "use existing": ("scaled_linear", 0.012),
}


@pytest.mark.parametrize("word", SCHEDULES)
@pytest.mark.parametrize("version", but_newest(("v3", "SDXL beta"), ("v3",)))
def test_words_of_the_schedule_are_those_of_diffusers(bench, word, version):
    """ComfyUI's words, which name the same tables otherwise: its "sqrt_linear" is linear in beta."""
    from diffusers import DDIMScheduler

    kind, end = (
        ("scaled_linear", 0.020) if (word, version) == ("as trained", "SDXL beta") else SCHEDULES[word]
    )
    model = bench.move(bench.base(version), version, beta_schedule=word)
    sampling = model.get_model_object("model_sampling")
    alphas = DDIMScheduler(beta_start=0.00085, beta_end=end, beta_schedule=kind).alphas_cumprod.double()
    assert relative(sampling.sigmas.double(), ((1 - alphas) / alphas).sqrt()) <= 1e-5
    assert ("model_sampling" in model.object_patches) is (word != "use existing")
