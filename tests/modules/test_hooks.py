"""Hooks of the SVD UNet: where they are called, what they are shown, and that nothing shown changes later."""

import pytest
import torch

from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.exvideo import ExVideoBranches
from kinetograph.modules.families.svd.model import SVDUNet
from kinetograph.modules.layers import slabs
from kinetograph.modules.layers.hooks import Hooks

TINY = SVDConfig(channels=(32, 64, 64, 64), head_dim=32, context_dim=32, adm_dim=96)
CLIPS, FRAMES = 2, 3


def randomise(model, spread=1.5):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1.0
        parameter.data.normal_(0, spread / fan**0.5 if fan > 1 else 1.0, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return randomise(SVDUNet(TINY))


def run(unet, hooks=None, tokens=1):
    generator = torch.Generator().manual_seed(1)
    n = CLIPS * FRAMES
    x = torch.randn(n, 8, 16, 16, generator=generator)
    context = torch.randn(n, tokens, 32, generator=generator)
    y = torch.randn(n, 96, generator=generator)
    more = {} if hooks is None else {"hooks": hooks}
    with torch.inference_mode():
        return unet(x, torch.full((n,), 1.3), context, y=y, num_video_frames=FRAMES, **more)


def relative(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


class Watch(Hooks):
    """Keeps everything that passes, and what it was when it passed."""

    def __init__(self, into_transformers):
        self.into_transformers, self.names, self.kept, self.shapes = into_transformers, [], [], []
        self.place = None

    def keep(self, name, *tensors):
        self.names.append(name)
        self.kept += [(tensor, tensor.clone()) for tensor in tensors]
        self.shapes.append((name, self.place, tuple(tensors[0].shape)))

    def enter(self, stage, number):
        self.place = (stage, number)

    def time_embedding(self, emb_nd):
        self.keep("time", emb_nd)
        return emb_nd

    def embedding(self, emb_bte):
        self.keep("embedding", emb_bte)

    def after_input(self, x_nchw):
        self.keep("input", x_nchw)
        return x_nchw

    def after_skip(self, x_nchw):
        self.keep("skip", x_nchw)
        return x_nchw

    def after_middle(self, x_nchw):
        self.keep("middle", x_nchw)
        return x_nchw

    def before_output(self, x_nchw, skip_nchw):
        self.keep("output", x_nchw, skip_nchw)
        return x_nchw, skip_nchw

    def enter_transformer(self, x_nchw):
        self.names.append("transformer")

    def attend(self, name, layer, y_bld, context_bld):
        out_bld = super().attend(name, layer, y_bld, context_bld)
        self.keep(name, *(t for t in (y_bld, context_bld, out_bld) if t is not None))
        return out_bld

    def between(self, x_bld):
        self.keep("between", x_bld)
        return x_bld


@pytest.mark.parametrize("into_transformers", [False, True])
@pytest.mark.parametrize("tokens", [1, 4])
def test_watching_changes_nothing_and_nothing_seen_changes(unet, into_transformers, tokens, monkeypatch):
    """Without a look into transformers to the bit; with one up to rounding, for then nothing is cut."""
    monkeypatch.setattr(slabs, "UNET", slabs.Budget(2**12, 2**12))
    watch = Watch(into_transformers)
    got, expected = run(unet, watch, tokens), run(unet, tokens=tokens)
    assert torch.equal(got, expected) or into_transformers
    assert relative(got, expected) <= 2e-6
    assert len(watch.kept) > 40 and all(torch.equal(now, then) for now, then in watch.kept)


def test_every_place_in_its_order(unet):
    watch = Watch(True)
    run(unet, watch)
    block = ["transformer", *("attn1", "between", "attn2") * 2]
    down = [
        name for i in range(12) for name in (*(block if i in (1, 2, 4, 5, 7, 8) else []), "input", "skip")
    ]
    up = [name for number in range(12) for name in ("output", *(block if number > 2 else []))]
    assert watch.names == ["time", "embedding", *down, *block, "middle", *up]
    assert unet.places.width == 32 and unet.places.blocks == {"input": 12, "middle": 1, "output": 12}
    assert {place for name, place, _ in watch.shapes if name == "attn1"} == unet.places.transformers


def test_whole_batches_are_shown(unet, monkeypatch):
    """Also where memory is short: tokens of every frame at once, then every pixel's frames."""
    monkeypatch.setattr(slabs, "UNET", slabs.Budget(2**12, 2**12))
    watch = Watch(True)
    run(unet, watch)
    seen = [shape for name, place, shape in watch.shapes if name == "attn1" and place == ("input", 1)]
    assert seen == [(CLIPS * FRAMES, 256, 32), (CLIPS * 256, FRAMES, 32)]


@pytest.mark.parametrize("into_transformers", [False, True])
def test_a_skip_may_be_joined_by_others(unet, into_transformers):
    class Joined(Hooks):
        def before_output(self, x_nchw, skip_nchw):
            return torch.cat([x_nchw, skip_nchw], dim=1), None

    hooks = Joined()
    hooks.into_transformers = into_transformers
    assert relative(run(unet, hooks), run(unet)) <= 2e-6


def test_graphs_and_long_clips_are_watched_alike():
    unet = randomise(SVDUNet(TINY), 1.0)
    randomise(branches := ExVideoBranches(TINY), 0.3).put_into(unet)
    expected, watch = run(unet), Watch(True)
    assert relative(run(unet, watch), expected) <= 2e-6
    assert all(torch.equal(now, then) for now, then in watch.kept) and len(list(branches.items())) == 16
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 8, 16, 16, generator=generator).requires_grad_()
    given = torch.randn(6, 1, 32, generator=generator), torch.randn(6, 96, generator=generator)
    out = unet(x, torch.full((6,), 1.3), given[0], y=given[1], num_video_frames=FRAMES, hooks=Watch(True))
    assert relative(out.detach(), expected) <= 2e-6
    out.square().mean().backward()
    assert x.grad.abs().max() > 0
