"""Files that pocket trainings from nothing start with: each one that a configuration names can be written."""

import pytest
import torch
from torch import nn

from kinetograph.modules.families import COGVIDEOX, PIXART
from kinetograph.modules.training.configuration import read_recipe
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket import starts
from kinetograph.pocket.parts import ROOT
from kinetograph.pocket.pixart.motion import GridMotion, fit_modules
from kinetograph.pocket.pixart.parts import LAYERS, WIDTH, TextToPicture
from kinetograph.pocket.sd.motion import noisy_clips
from kinetograph.pocket.sd.world import captioned, draw_latents

RECIPES = [read_recipe(path) for path in sorted((ROOT / "configs" / "training" / "pocket").glob("*.toml"))]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_configuration_names_files_that_there_are(recipe):
    """Files of the pocket, starts, and what another configuration leaves."""
    told = {f"{name}.safetensors" for name in (*starts.STARTS, *(other.name for other in RECIPES))}
    for name in filter(None, vars(recipe.model).values()):
        assert name in told or (ROOT / "pocket" / "models" / name).exists(), name


def test_every_start_is_one_that_a_configuration_names():
    named = {name for recipe in RECIPES for name in vars(recipe.model).values()}
    assert {f"{name}.safetensors" for name in starts.STARTS} <= named


@pytest.mark.parametrize("name", [name for name in starts.STARTS if "motion" not in name.lower()])
def test_a_network_s_start_is_complete_and_full_precision(name, tmp_path):
    finding = detect(read_header(starts.write_start(name, tmp_path)), (COGVIDEOX, PIXART), "diffusion_model")
    assert not finding.check().missing and not finding.unexpected and finding.dtype == "float32"


@pytest.fixture
def grid():
    """EasyAnimate's modules in the shipped base, and four frames for them: x, timesteps, contexts."""
    torch.manual_seed(0)
    return GridMotion(), (torch.randn(4, 4, 8, 8), torch.full((4,), 400.0), torch.randn(4, 3, 32))


def test_grid_modules_start_as_nothing_and_join_frames(grid):
    net, (x, t, context) = grid
    base = TextToPicture().eval()
    base.transformer.load_state_dict(net.base.transformer.state_dict(), strict=False)
    fit_modules(net.motion, lambda: net.base(x, t, context, 2))
    alone = base(x, t, context)
    torch.testing.assert_close(net.base(x, t, context, 2), alone, atol=1e-5, rtol=1e-5)
    for _, place in net.motion.items():
        nn.init.normal_(place.attn_temporal.temporal_transformer.proj_out.weight, std=0.1)
    joined = net.base(x, t, context, 2)
    other = net.base(torch.cat([torch.zeros_like(x[:1]), x[1:]]), t, context, 2)
    # two clips of two frames: the first clip's second frame sees its first one, the second clip does not
    assert (other[1] - joined[1]).abs().max() > 1e-3
    torch.testing.assert_close(other[2:], joined[2:], atol=1e-5, rtol=1e-5)


def test_norms_are_fitted_to_the_tokens_at_their_door(grid):
    net, given = grid
    tokens = {}
    for number, (_, place) in enumerate(net.motion.items()):
        module = place.attn_temporal.temporal_transformer
        module.register_forward_pre_hook(lambda m, inputs, n=number: tokens.update({n: (m.norm, inputs[0])}))
    fit_modules(net.motion, lambda: net.base(*given, 4))
    assert len(tokens) == LAYERS
    for norm, x_nld in tokens.values():
        groups = x_nld.unflatten(2, (32, -1))
        centred = groups - groups.mean((1, 3), keepdim=True)
        y = (centred / groups.var((1, 3), correction=0, keepdim=True).add(1e-6).sqrt()).flatten(2)
        y = y * norm.weight + norm.bias
        torch.testing.assert_close(y.mean((0, 1)), torch.zeros(WIDTH), atol=1e-3, rtol=0)
        assert (y.std((0, 1)) <= 1.01).all() and y.std((0, 1)).median() > 0.98


def context_of(captions):
    """Features of a caption are its length, over and over."""
    return torch.stack([torch.full((3, 2), float(len(caption))) for caption in captions])


@pytest.mark.parametrize(
    "kind, betas",
    [
        ("linear", torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)),
        ("pixart", torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)),
    ],
)
def test_norms_see_clips_under_the_noise_of_the_base(kind, betas):
    torch.manual_seed(0)
    x, t, context, frames = noisy_clips(kind, context_of, 70, 3)
    torch.manual_seed(0)
    shown = [captioned(70 + i) for i in range(3)]
    x0 = draw_latents([one.clip for one in shown])
    levels = torch.tensor([200, 599, 999])
    kept = (1 - betas).cumprod(0)[levels].view(-1, 1, 1, 1, 1)
    wanted = (kept.sqrt() * x0 + (1 - kept).sqrt() * torch.randn_like(x0)).float()
    torch.testing.assert_close(x, wanted.flatten(0, 1), atol=2e-5, rtol=2e-5)
    assert frames == 16 and torch.equal(t, levels.repeat_interleave(16))
    assert torch.equal(context, context_of([one.caption for one in shown]).repeat_interleave(16, 0))
