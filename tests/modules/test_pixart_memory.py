"""Exact ceilings on the memory of a step of PixArt with EasyAnimate's modules, on tensors that hold no data.

As on an accelerator, in half precision, two blocks of the published width: the others need no more at once.
"""

import pytest
import torch

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.modules.families.easyanimate.config import GridConfig
from kinetograph.modules.families.easyanimate.model import GridModules
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.pixart.model import PixArtTransformer

from .test_svd_memory import attend

LAYERS, GUIDED, GIB = 2, 2, 2**30
TEXT = (GUIDED, 120, 4096)


@pytest.fixture(scope="module")
def model():
    told = {"dtype": torch.bfloat16, "device": "meta", "attention": attend}
    network = PixArtTransformer(PixArtConfig(num_layers=LAYERS), **told)
    GridModules(GridConfig(num_layers=LAYERS), **told).put_into(network)
    return network.eval().requires_grad_(False)


def peaks(model, frames, side=64):
    """(bytes at the peak, bytes of the tokens alone) of a step with both halves of guidance."""
    rows = GUIDED * frames
    empty = model.proj_out.weight.new_empty
    x, time, text = empty(rows, 4, side, side), empty(rows), empty(TEXT)
    with torch.inference_mode():
        peak = peak_live_bytes(lambda: model(x, time, text, num_video_frames=frames))
    return peak, rows * (side // 2) ** 2 * model.config.width * 2


def test_80_frames_of_512x512(model):
    """diffusers' modules put together need 7.08 GiB (benchmark `pixart_easyanimate`); 0.60 of that would be 4.25."""
    peak, tokens = peaks(model, 80)
    assert tokens < peak <= 0.55 * GIB


def test_what_is_not_tokens_does_not_grow_with_the_clip(model):
    """Twice and four times as many frames: beside the tokens, only what has a row for each frame grows."""
    beside = {
        frames: peak - tokens for frames, (peak, tokens) in ((f, peaks(model, f)) for f in (20, 40, 80))
    }
    assert beside[80] <= 1.35 * beside[20] and beside[80] <= 0.25 * GIB


def test_a_picture_of_1024_needs_no_more_than_its_tokens_and_a_slab(model):
    peak, tokens = peaks(model, 1, side=128)
    assert peak <= tokens + 0.25 * GIB
