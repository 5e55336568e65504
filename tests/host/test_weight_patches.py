"""LoRA files through the host's nodes: the same as weights changed by hand, whichever way a layer runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.layers import slabs
from kinetograph.tests.host.workbench import Workbench, relative, run

RANK, ALPHA, STRENGTH = 4, 2.0, 0.8
MODULES = [
    "patch_embed.proj",
    "patch_embed.text_proj",
    "time_embedding.linear_1",
    "transformer_blocks.0.attn1.to_q",
    "transformer_blocks.0.attn1.to_out.0",
    "transformer_blocks.0.ff.net.0.proj",
    "transformer_blocks.1.ff.net.2",
    "transformer_blocks.1.norm1.linear",
    "proj_out",
]
WORDS = {  # how a file names a module and its two halves
    "peft": ("diffusion_model.{}", ".lora_A.weight", ".lora_B.weight"),
    "plain": ("diffusion_model.{}", ".lora_down.weight", ".lora_up.weight"),
    "kohya": ("lora_unet_{}", ".lora_down.weight", ".lora_up.weight"),
}
LOADERS = ["LoraLoader", "LoraLoaderModelOnly"]


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


@pytest.fixture
def small_chunks(monkeypatch):
    """Feed-forwards run block of tokens by block of tokens even at this size."""
    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(2048, 2048))


def parameters(model):
    return dict(model.model.diffusion_model.named_parameters())


def make_lora(model):
    """Module -> (down, up): random halves for some of the model's layers."""
    generator = torch.Generator().manual_seed(3)
    weights = parameters(model)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.2

    halves = {}
    for module in MODULES:
        out, *rest = weights[f"{module}.weight"].shape
        halves[module] = draw(RANK, *rest), draw(out, RANK, *[1] * (len(rest) - 1))
    return halves


def save_lora(bench, halves, style):
    """Write a LoRA file into the host's folder; returns its name."""
    import folder_paths

    pattern, down_word, up_word = WORDS[style]
    tensors = {}
    for module, (down, up) in halves.items():
        name = pattern.format(module.replace(".", "_") if style == "kohya" else module)
        tensors |= {name + down_word: down, name + up_word: up, name + ".alpha": torch.tensor(ALPHA)}
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{style}.safetensors")
    return f"{style}.safetensors"


@torch.inference_mode()
def change_by_hand(model, halves):
    """The same change in the weights themselves, in float64."""
    weights = parameters(model)
    for module, (down, up) in halves.items():
        weight = weights[f"{module}.weight"]
        change = (up.flatten(1).double() @ down.flatten(1).double()).view(weight.shape)
        weight.data = (weight.double() + STRENGTH * ALPHA / RANK * change).float()
    return model


def first_step(bench, model):
    """One forward pass of one prompt: nothing amplifies a difference."""
    return bench.sampler(model, bench.empty(), steps=1, cfg=1.0, sampler_name="cogvideox_ddim")


@pytest.fixture(scope="module", params=["5B", "1.5-5B"])
def case(request, bench):
    """(variant, its LoRA, what it must give, what the model gives without)."""
    plain = bench.load(request.param)[0]
    halves = make_lora(plain)
    without = first_step(bench, plain)
    expected = first_step(bench, change_by_hand(plain, halves))
    assert relative(expected, without) > 0.05
    return request.param, halves, expected, without


class TestPatchedWeights:
    """LoRA as the host's loaders apply it."""

    @pytest.mark.parametrize("style", WORDS)
    def test_as_changed_by_hand(self, bench, case, style):
        variant, halves, expected, without = case
        model = bench.shared(variant)[0]
        chosen = {"lora_name": save_lora(bench, halves, style), "strength_model": STRENGTH}
        (patched,) = run(bench.host.LoraLoaderModelOnly, model=model, **chosen)
        assert relative(first_step(bench, patched), expected) < 1e-5
        assert torch.equal(first_step(bench, model), without)

    def test_lora_loader_with_clip(self, bench, case):
        variant, halves, expected, _ = case
        model, clip, _ = bench.shared(variant)
        chosen = {"lora_name": save_lora(bench, halves, "peft"), "strength_model": STRENGTH}
        patched, _ = run(bench.host.LoraLoader, model=model, clip=clip, strength_clip=1.0, **chosen)
        assert relative(first_step(bench, patched), expected) < 1e-5

    def test_weights_fetched_for_chunks(self, bench, case, small_chunks):
        variant, halves, expected, _ = case
        chosen = {"lora_name": save_lora(bench, halves, "peft"), "strength_model": STRENGTH}
        (patched,) = run(bench.host.LoraLoaderModelOnly, model=bench.shared(variant)[0], **chosen)
        assert relative(first_step(bench, patched), expected) < 1e-5

    @pytest.mark.parametrize("chunks", [False, True])
    def test_patched_while_cast(self, bench, case, chunks, request):
        """With little memory the host patches weights on their way to the device, not where they lie."""
        if chunks:
            request.getfixturevalue("small_chunks")
        variant, halves, expected, _ = case
        model = bench.load(variant)[0]
        chosen = {"lora_name": save_lora(bench, halves, "peft"), "strength_model": STRENGTH}
        (patched,) = run(bench.host.LoraLoaderModelOnly, model=model, **chosen)
        before = {key: weight.clone() for key, weight in parameters(model).items()}
        with torch.inference_mode():
            patched.load(patched.load_device, lowvram_model_memory=1)
        held = patched.model.diffusion_model.patch_embed.text_proj
        assert len(held.weight_function) == 1
        assert relative(apply(bench, patched), apply(bench, reference(bench, case))) < 1e-5
        assert all(torch.equal(weight, before[key]) for key, weight in parameters(model).items())
        patched.detach()
        assert not held.weight_function


def reference(bench, case):
    """A loaded model whose weights were changed by hand."""
    model = change_by_hand(bench.load(case[0])[0], case[1])
    with torch.inference_mode():
        model.load(model.load_device, full_load=True)
    return model


def apply(bench, model):
    """One forward pass of a model that is loaded as it is."""
    text = bench.text()[0][0]
    x = torch.randn((1, 16, 4, 8, 8), generator=torch.manual_seed(7))
    with torch.inference_mode():
        return model.model.apply_model(x, torch.tensor([3.0]), c_crossattn=text)


class TestBypass:
    """LoRA that takes over the layers' forward instead of their weights."""

    def bypassed(self, bench, case, style="peft"):
        import comfy.sd
        import folder_paths

        variant, halves = case[:2]
        path = folder_paths.get_full_path("loras", save_lora(bench, halves, style))
        model = bench.shared(variant)[0]
        with torch.inference_mode():
            return comfy.sd.load_bypass_lora_for_models(model, None, load_file(path), STRENGTH, 0.0)[0]

    def test_as_changed_by_hand(self, bench, case):
        assert relative(first_step(bench, self.bypassed(bench, case)), case[2]) < 1e-5

    def test_chunks_go_through_the_layer(self, bench, case, small_chunks):
        assert relative(first_step(bench, self.bypassed(bench, case)), case[2]) < 1e-5

    def test_nothing_stays(self, bench, case, small_chunks):
        model = bench.shared(case[0])[0]
        before = first_step(bench, model)
        first_step(bench, self.bypassed(bench, case))
        assert torch.equal(first_step(bench, model), before)
