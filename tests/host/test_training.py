"""The host's own trainer on our MODEL: gradients flow, the result loads, nothing of the model changes."""

import inspect

import pytest
import torch

from kinetograph.tests.host.workbench import Workbench, relative, run

VARIANTS = ["5B", "1.5-5B"]


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


def dataset(bench, frames):
    """Two clips and their captions."""
    return [bench.clip(frames, seed=seed) for seed in (0, 1)], [bench.text("one"), bench.text("two")]


def train(bench, model, frames=13, **changes):
    """(LoRA tensors, losses) of TrainLoraNode; every input of it is a list."""
    from comfy_extras.nodes_train import TrainLoraNode

    latents, captions = dataset(bench, frames)
    chosen = {
        "batch_size": 1,
        "grad_accumulation_steps": 1,
        "steps": 2,
        "learning_rate": 0.05,
        "rank": 2,
        "optimizer": "SGD",
        "loss_function": "MSE",
        "seed": 5,
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": True,
        "checkpoint_depth": 1,
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": False,
        **changes,
    }
    options = inspect.signature(TrainLoraNode.execute).parameters
    lists = {name: [value] for name, value in chosen.items() if name in options}
    if isinstance(lists["algorithm"][0], str):
        lists["algorithm"] = [adapter_named(lists["algorithm"][0])]
    out = run(TrainLoraNode, model=[model], latents=latents, positive=captions, **lists)
    return out[0], out[1]["loss"]


def adapter_named(name):
    from comfy.weight_adapter import adapter_maps

    return next(key for key in adapter_maps if key.lower() == name.lower())


def weights(model):
    return {key: weight.clone() for key, weight in model.model.state_dict().items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_lora_is_trained_and_loads(bench, variant):
    from comfy_extras.nodes_train import LoraModelLoader

    model = bench.shared(variant)[0]
    before, clip = weights(model), bench.sampler(model, bench.empty())
    lora, losses = train(bench, model)
    assert len(losses) == 2 and all(0 < loss < float("inf") for loss in losses)
    moved = {
        key
        for key, value in lora.items()
        if key.endswith(("lora_up.weight", "diff", "diff_b")) and value.any()
    }
    for module in ("patch_embed.proj", "transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2"):
        assert any(module in key for key in moved), module
    assert all(torch.equal(value, before[key]) for key, value in weights(model).items())
    (patched,) = run(LoraModelLoader, model=model, lora=lora, strength_model=1.0, bypass=False)
    assert relative(bench.sampler(patched, bench.empty()), clip) > 1e-3
    assert torch.equal(bench.sampler(model, bench.empty()), clip)


@pytest.mark.parametrize("mode", ["bf16", "bypass_mode", "offloading"])
def test_ways_to_train(bench, mode):
    changes = {"training_dtype": "bf16", "lora_dtype": "bf16"} if mode == "bf16" else {mode: True}
    lora, losses = train(bench, bench.shared()[0], **changes)
    assert all(0 < loss < float("inf") for loss in losses)
    assert any("patch_embed.proj" in key and "up" in key and value.any() for key, value in lora.items())


def test_deep_clones_share_nothing(bench):
    """The host's trainer, hooks and several devices ask the loader for the model once more."""
    model = bench.shared()[0]
    factory, arguments = model.cached_patcher_init
    with torch.inference_mode():
        twin = factory(*arguments, disable_dynamic=True)
    assert twin.model is not model.model
    theirs = dict(twin.model.named_parameters())
    for key, weight in model.model.named_parameters():
        assert torch.equal(weight, theirs[key]) and weight is not theirs[key]
        assert not theirs[key].is_inference()
    assert torch.equal(bench.sampler(twin, bench.empty()), bench.sampler(model, bench.empty()))
