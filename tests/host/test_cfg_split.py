"""The host's split of guidance over devices (0.30, MultiGPU CFG Split) with our MODELs.

Two stand-in devices, cpu:0 and cpu:1: PyTorch takes the index and computes on the same cores, and the host's own
bookkeeping sees two. What cards do with it is not seen here.
"""

import threading

import pytest
import torch

from kinetograph.tests import tiny_svd
from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, per_frame, relative, run

pytestmark = pytest.mark.newest  # the only one that splits

BOUND = 1e-5  # each pass is compared with the same pass alone on one device
FIRST, SECOND = (torch.device("cpu", index) for index in range(2))
LONG = {"long_clip": "on", "equalise_frames": False, "contrast_scale": 1.0, "sequential_cfg": True}
RUNS = {
    "KSampler": None,
    "constant": {},
    "dynamic cosine": {"guidance": {"guidance": "dynamic cosine", "cfg": 6.0, "clock": "step"}},
    "per-frame linear": {"guidance": per_frame(1.0, 6.0)},
    "sequential_cfg": {"long_clip": LONG},
}
SVD_SETTINGS = {"scheduler": "karras", "cfg": 2.5, "denoise": 0.4}


@pytest.fixture(scope="module")
def benches(comfy_here, base):
    tiny_svd.write_exvideo(base / "models" / "SVD" / "tiny-exvideo.safetensors")
    return {"cogvideox": Workbench(), "svd": SVDWorkbench()}


@pytest.fixture
def split(monkeypatch):
    """A function that puts a MODEL on the first device and has the host's node split it."""
    import comfy.model_management as management

    def free():
        """The host's node fails where the list of loaded MODELs holds one that nobody has any more."""
        for device in (torch.device("cpu"), FIRST, SECOND):
            management.free_memory(1e30, device)

    def over_two(model):
        from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

        free()
        model = model.clone()
        model.load_device = FIRST
        (over,) = run(MultiGPUCFGSplitNode, model=model, max_gpus=2)
        assert [copy.load_device for copy in over.get_additional_models_with_key("multigpu")] == [SECOND]
        return over

    monkeypatch.setattr(management, "get_all_torch_devices", lambda exclude_current=False: [FIRST, SECOND])
    yield over_two
    free()


class Passes:
    """A wrapper of ours that notes which network runs in which thread; goes onto a MODEL as any node's would."""

    def __init__(self):
        self.seen = set()

    def on(self, model):
        from comfy.patcher_extension import WrappersMP

        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "passes", self)
        return watched

    def __call__(self, executor, x, *args, **kwargs):
        self.seen.add((id(executor.class_obj), threading.get_ident(), len(x)))
        return executor(x, *args, **kwargs)


def model_of(benches, family):
    bench = benches[family]
    return bench, (bench.shared()[0], bench.clip()) if family == "cogvideox" else (
        bench.svd()[0],
        bench.empty(),
    )


def alone(model):
    """The MODEL with both passes one after the other on one device, by a wrapper that knows nothing of a split."""
    from kinetograph.nodes.host.sampling import one_at_a_time

    return one_at_a_time(model)


def sampled(bench, model, latent, settings):
    more = {"steps": 2, **(SVD_SETTINGS if isinstance(bench, SVDWorkbench) else {})}
    if settings is None:
        return bench.ksampler(model, latent, **more)
    return bench.sampler(model, latent, **{**more, **settings})


@pytest.mark.parametrize("family", ["cogvideox", "svd"])
@pytest.mark.parametrize("name", RUNS)
def test_both_devices_work_and_the_clip_is_the_same(benches, split, family, name):
    bench, (model, latent) = model_of(benches, family)
    whole = sampled(bench, alone(model), latent, RUNS[name])
    passes = Passes()
    over = sampled(bench, passes.on(split(model)), latent, RUNS[name])
    assert relative(over, whole) <= BOUND
    networks, threads, sizes = map(set, zip(*passes.seen, strict=True))
    assert len(networks) == len(threads) == 2 == len(passes.seen)
    assert sizes == {len(latent["samples"])}, "one pass each"
    # what was on a device comes back as a copy, which rounds otherwise where a file's own bytes lay askew
    assert relative(sampled(bench, alone(model), latent, RUNS[name]), whole) <= BOUND


def lora(model):
    """A MODEL behind the host's LoRA loader."""
    import comfy.sd

    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for key, weight in model.model.diffusion_model.named_parameters():
        if key.endswith(("to_q.weight", "to_v.weight")):
            name = f"diffusion_model.{key.removesuffix('.weight')}"
            tensors[f"{name}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.3
            tensors[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.3
    return comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]


@pytest.mark.parametrize("first", ["LoRA", "split"])
def test_a_lora_reaches_both_devices(benches, split, first):
    bench, (model, latent) = model_of(benches, "cogvideox")
    whole = sampled(bench, alone(lora(model)), latent, {})
    over = split(lora(model)) if first == "LoRA" else lora(split(model))
    assert relative(sampled(bench, over, latent, {}), whole) <= BOUND
    assert relative(sampled(bench, split(model), latent, {}), whole) > 1e-3


@pytest.mark.parametrize("first", ["ExVideo", "split"])
def test_exvideo_has_layers_of_its_own_on_each_device(benches, split, first):
    bench, (model, _) = model_of(benches, "svd")
    latent = bench.empty(size=128)

    def patched(model):
        return run(bench.ours["ExVideoPatch"], model=model, exvideo="SVD/tiny-exvideo.safetensors")[0]

    whole = sampled(bench, alone(patched(model)), latent, {})
    over = split(patched(model)) if first == "ExVideo" else patched(split(model))
    for _ in range(2):
        assert relative(sampled(bench, over, latent, {}), whole) <= BOUND
        over.match_multigpu_clones()
        (copy,) = over.get_additional_models_with_key("multigpu")
        layers = {place for place, layer in over.object_patches.items() if isinstance(layer, torch.nn.Module)}
        assert layers
        for place in layers:
            assert copy.object_patches[place] is not over.object_patches[place]
    assert relative(sampled(bench, model, latent, {}), whole) > 1e-3


def test_a_refusal_names_its_reason_with_two_devices_too(benches, split):
    from comfy_extras.nodes_freelunch import FreeU

    bench, (model, latent) = model_of(benches, "cogvideox")
    freeu = run(FreeU, model=split(model), b1=1.3, b2=1.4, s1=0.9, s2=0.2)[0]
    with pytest.raises(ValueError, match="does not call the patch output_block_patch, set by FreeU"):
        sampled(bench, freeu, latent, {})
