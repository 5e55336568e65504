"""Our objects under the host's memory management: stored dtypes, unloading, weights that come late."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tests.host.workbench import Workbench, relative

STORED = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
LOSS = {
    "bf16": 0.15,
    "fp16": 0.02,
    "fp32": 0.0,
    "fp8_e4m3fn": 0.6,
}  # of random weights, far from trained ones


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


def network(model):
    return model.model.diffusion_model


def first_step(bench, model):
    """What the model predicts from noise alone, with nothing in between."""
    return bench.sampler(model, bench.empty(), steps=1, cfg=1.0, sampler_name="cogvideox_ddim")


@pytest.mark.parametrize("name", STORED)
def test_weight_dtypes(bench, name):
    """Matrices of the blocks are kept in the chosen dtype; an 8-bit file keeps the rest as it is."""
    model = bench.load("5B", name)[0]
    weights = dict(network(model).named_parameters())
    assert weights["transformer_blocks.0.attn1.to_q.weight"].dtype == STORED[name]
    small = weights["norm_final.weight"].dtype
    assert small == (torch.float32 if name == "fp8_e4m3fn" else STORED[name])
    expected = first_step(bench, bench.shared()[0])
    ours = first_step(bench, model)
    assert ours.isfinite().all() and relative(ours, expected) <= LOSS[name]
    assert name == "fp32" or not torch.equal(ours, expected)


@pytest.mark.parametrize("variant", ["5B", "1.5-5B"])
def test_fp8_file(bench, base, variant):
    """As kijai publishes them: matrices of the blocks in fp8, everything else in half precision."""
    source = base / "models" / "CogVideo" / f"tiny-{variant}" / "transformer"
    tensors = load_file(tiny.weights_of(source))
    mixed, rounded = {}, {}
    for key, tensor in tensors.items():
        inside = tensor.ndim == 2 and "transformer_blocks" in key
        mixed[key] = tensor.to(torch.float8_e4m3fn if inside else torch.float16)
        rounded[key] = mixed[key].float()
    settings = {"config": (source / "config.json").read_text()}
    folder = base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    names = f"fp8-{variant}.safetensors", f"rounded-{variant}.safetensors"
    for name, content in zip(names, (mixed, rounded), strict=True):
        save_file(content, folder / name, settings)
    plain = first_step(bench, bench.load(model=names[1], weight_dtype="fp32")[0])
    kept = bench.load(model=names[0], weight_dtype="fp8_e4m3fn")[0]
    weights = dict(network(kept).named_parameters())
    assert weights["transformer_blocks.0.attn1.to_q.weight"].dtype == torch.float8_e4m3fn
    assert weights["norm_final.weight"].dtype == torch.float16
    assert relative(first_step(bench, kept), plain) < 1e-5
    # auto leaves the choice to the host, which unpacks fp8 where memory allows
    assert relative(first_step(bench, bench.load(model=names[0], weight_dtype="auto")[0]), plain) < 1e-5


@pytest.mark.parametrize("variant", ["5B-I2V", "2B"])
def test_everything_unloaded_in_between(bench, variant):
    """Weights leave and come back; 5B-I2V has a bare parameter, 2B tables made on the fly."""
    from comfy.model_management import unload_all_models

    model, _, vae = bench.shared(variant)
    positive = bench.text()
    if "I2V" in variant:
        image = bench.clip(17)["samples"]
        positive = [[text, {**options, "concat_latent_image": image}] for text, options in positive]
    latent = bench.empty(17)
    chosen = {"positive": positive, "negative": positive, "steps": 2}
    first = bench.sampler(model, latent, **chosen)
    with torch.inference_mode():
        frames = vae.decode(first)
        unload_all_models()
        again = bench.sampler(model, latent, **chosen)
        assert torch.equal(again, first)
        unload_all_models()
        assert torch.equal(vae.decode(again), frames)


class TestLateWeights:
    """With dynamic VRAM the host's Linear has no weight until a checkpoint is loaded; simulated on a CPU."""

    @pytest.fixture
    def late(self, monkeypatch):
        import comfy.memory_management
        import comfy.model_management

        monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
        monkeypatch.setattr(comfy.model_management, "WINDOWS", True)  # 0.16.3 does so there only

    @pytest.mark.parametrize("variant", list(tiny.VARIANTS))
    def test_models_ask_no_weight_before(self, bench, late, variant):
        from kinetograph.nodes.host.diffusion import FamilyConfig

        recipe = bench.shared(variant)[0].model.recipe
        config = FamilyConfig(recipe)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(None, device=torch.device("meta"))
        empty = [module for module in model.modules() if getattr(module, "weight", 0) is None]
        assert len(empty) > 20
        recipe.fill(model.diffusion_model, torch.float32)
        loaded = dict(model.diffusion_model.named_parameters())
        for key, weight in network(bench.shared(variant)[0]).named_parameters():
            assert torch.equal(loaded.pop(key), weight)
        assert not loaded

    def test_the_whole_loader(self, bench, late):
        model, clip, vae = bench.load("1.5-5B")
        expected = first_step(bench, bench.shared("1.5-5B")[0])
        assert torch.equal(first_step(bench, model), expected)
        with torch.inference_mode():
            assert vae.decode(expected).isfinite().all()


def test_no_weight_was_moved_by_us():
    """Weights travel through the host's patchers and casts alone: nobody calls .to() or .cuda() on a model."""
    import re
    from pathlib import Path

    import kinetograph

    root = Path(kinetograph.__file__).parent
    moves = re.compile(r"\b(model|network|module|first_stage_model|diffusion_model|vae|clip)\.(to|cuda)\(")
    for path in [*root.glob("nodes/**/*.py"), *root.glob("modules/families/**/*.py")]:
        assert not moves.search(path.read_text(encoding="utf-8")), path
