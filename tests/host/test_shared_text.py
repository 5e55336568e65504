"""One prompt for all frames of a model with motion modules: its keys and values are made once, and nothing else changes."""

import pytest
import torch

from kinetograph.tests import motion_files
from kinetograph.tests.host import pictures
from kinetograph.tests.host.workbench import Workbench, relative, run

FRAMES = 4
MODULES = {"SD15": "v3", "SDXL": "SDXL beta"}


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    motion_files.write_all(base / "models" / "animatediff_models")
    return Workbench()


@pytest.fixture(params=["SD15", pytest.param("SDXL", marks=pytest.mark.newest)])
def moving(request, bench):
    """(MODEL, MODEL with motion modules, rows of text that each cross-attention was handed)."""
    model, rows = pictures.build(request.param), []
    name = f"animatediff_models/tiny-{MODULES[request.param].replace(' ', '-')}.safetensors"
    told = {"beta_schedule": "use existing", "strength": 1.0, "version": "from the file", "num_frames": 0}
    for layer_name, layer in model.model.diffusion_model.named_modules():
        if layer_name.endswith("attn2.to_k"):
            layer.register_forward_pre_hook(lambda layer, args: rows.append(len(args[0])))
    return model, run(bench.ours["MotionModuleApply"], model=model, motion_module=name, **told)[0], rows


def sample(bench, model, rows, **changes):
    rows.clear()
    positive, negative = pictures.prompts(words=7)
    latent = {"samples": torch.zeros(FRAMES, 4, 8, 8), "num_frames": FRAMES}
    told = {"positive": positive, "negative": negative, "cfg": 2.5, "steps": 2, **changes}
    samples = bench.ksampler(model, latent, **told)
    assert rows and samples.std() > 0.01
    return samples


def watched(model):
    """The same with a node that looks at cross-attention, and changes nothing."""
    clone = model.clone()
    clone.set_model_attn2_patch(lambda n, context, value, options: (n, context, value))
    return clone


def test_text_is_read_once_for_all_frames(bench, moving):
    plain, model, rows = moving
    once = sample(bench, model, rows)
    assert set(rows) == {2}
    assert relative(once, sample(bench, watched(model), rows)) <= 5e-6
    assert set(rows) == {2 * FRAMES}
    sample(bench, plain, rows)
    assert set(rows) == {2 * FRAMES}


def test_frames_with_texts_of_their_own_keep_them(bench, moving):
    _, model, rows = moving
    words = torch.randn(FRAMES, 7, pictures.CONTEXT, generator=torch.Generator().manual_seed(3))
    (_, values), *_ = pictures.prompts()[0]
    own = sample(bench, model, rows, positive=[[words, values]])
    assert set(rows) == {2 * FRAMES}
    assert torch.equal(own, sample(bench, watched(model), rows, positive=[[words, values]]))
    assert relative(own, sample(bench, model, rows, positive=[[words[:1], values]])) > 1e-3
