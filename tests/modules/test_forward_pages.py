"""The listings of the forward pages, run beside the networks that they tell of."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.family import Clip
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.tests import tiny

FOLDER = Path(__file__).resolve().parents[2] / "modules" / "families"
SMALL = {
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 16,
    "time_embed_dim": 16,
    "text_dim": 8,
    "max_text_tokens": 6,
}
LEARNED = {"in_channels": 32, "sample_width": 8, "sample_height": 6, "learned_positions": 6 + 3 * 12}
COGVIDEOX = {
    "2B": CogVideoXConfig(**SMALL, rotary=False),
    "5B": CogVideoXConfig(**SMALL),
    "5B-I2V": CogVideoXConfig(**SMALL, **LEARNED),
    "1.5-5B": CogVideoXConfig(**SMALL, patch_size_t=2),
    "1.5-5B-I2V": CogVideoXConfig(**SMALL, in_channels=32, patch_size_t=2, ofs_dim=16),
}
UNET = {"channels": (32, 32, 64, 64), "head_dim": 16, "context_dim": 8, "adm_dim": 48}
BY_ID = {family.id: family for family in FAMILIES}


@pytest.fixture
def listing(tmp_path):
    """What a page's listing defines: a module of the family's id."""

    def load(family):
        page = (FOLDER / family / "forward.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
        assert len(code.splitlines()) <= 75
        path = tmp_path / f"{family}_page.py"
        path.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def network(family, config, seed=0):
    return tiny.randomise(BY_ID[family].parts["diffusion_model"].build(config), seed).eval()


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("exvideo", [False, True])
@pytest.mark.parametrize("tokens", [1, 3])
def test_svd(listing, exvideo, tokens):
    config = SVDConfig(**UNET, exvideo=exvideo)
    net = network("svd", config)
    inputs = BY_ID["svd"].network.inputs(config, Clip(128, 192, 3, count=2))
    inputs["context_nld"] = torch.randn(6, tokens, 8)
    x, timestep, context, y, t = inputs.values()
    with torch.inference_mode():
        plain, theirs = listing("svd").unet(net, x.clone(), timestep, context, y, t), net(**inputs)
    assert relative(plain, theirs) <= 1e-5 and theirs.std() > 1e-2


@pytest.mark.parametrize("variant", COGVIDEOX)
def test_cogvideox(listing, variant):
    config = COGVIDEOX[variant]
    net = network("cogvideox", config)
    inputs = BY_ID["cogvideox"].network.inputs(config, Clip(64, 48, 9, count=2))
    with torch.inference_mode():
        plain = listing("cogvideox").transformer(net, *(value.clone() for value in inputs.values()))
        theirs = net(**inputs)
    assert relative(plain, theirs) <= 1e-5 and theirs.std() > 1e-2
