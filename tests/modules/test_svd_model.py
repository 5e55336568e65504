"""The SVD UNet against diffusers, with what diffusers gets wrong put right, and against wrong variants."""

from functools import cache, partial

import pytest
import torch
from torch import nn

from kinetograph.benchmarks import peers
from kinetograph.modules.families.svd import blocks, keys, transformer
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.model import SVDUNet, transformer_places
from kinetograph.modules.layers import positions, slabs

TINY = SVDConfig(channels=(64, 96, 64, 64), head_dim=32, context_dim=32, adm_dim=96)
TOLERANCE = 1e-5


def randomise(model, seed=0):
    """Weights that keep activations near one and make everything count: gates, norms, attention."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1.0
        parameter.data.normal_(0, 1.5 / fan**0.5 if fan > 1 else 1.0, generator=generator)
    return model.eval().requires_grad_(False)


@cache
@torch.inference_mode(False)
def pair():
    """diffusers' model, and ours with its weights."""
    oracle = randomise(
        peers.load_diffusers().UNetSpatioTemporalConditionModel(
            sample_size=16,
            block_out_channels=TINY.channels,
            num_attention_heads=tuple(width // TINY.head_dim for width in TINY.channels),
            cross_attention_dim=TINY.context_dim,
            addition_time_embed_dim=TINY.adm_dim // 3,
            projection_class_embeddings_input_dim=TINY.adm_dim,
            layers_per_block=TINY.num_res_blocks,
            num_frames=4,
        )
    )
    for norm in block_norms(oracle):  # the original has 1e-5 everywhere: Stability-AI/generative-models
        norm.eps = 1e-5
    weights = oracle.state_dict()
    renames = keys.DIFFUSERS.rename(weights)
    ours = SVDUNet(TINY)
    ours.load_state_dict({renames[key]: value for key, value in weights.items()}, strict=True)
    return ours.eval().requires_grad_(False), oracle


def block_norms(oracle):
    modules = oracle.named_modules()
    return [m for name, m in modules if "_res_block" in name and isinstance(m, nn.GroupNorm)]


def inputs(clips=1, frames=3, h=8, w=16, tokens=1):
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator)
    x, context = draw(clips, frames, 8, h, w), draw(clips, tokens, TINY.context_dim)
    timestep = torch.tensor([1.3, -0.4])[:clips]
    ids = torch.tensor([[5, 127, 0.02], [8, 30, 0.3]])[:clips]
    return x, timestep, context, ids


def run(model, x, timestep, context, ids, **kwargs):
    y = positions.sinusoid(ids.flatten(), TINY.adm_dim // 3).reshape(len(ids), -1)
    frames = x.shape[1]
    out = model(x.flatten(0, 1), timestep, context, y=y, num_video_frames=frames, **kwargs)
    return out.unflatten(0, x.shape[:2])


def ours_of(*given, **kwargs):
    with torch.inference_mode():
        return run(pair()[0], *given, **kwargs)


def theirs_of(*given):
    with torch.inference_mode():
        return pair()[1](*given, return_dict=False)[0]


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("sizes", [(1, 3, 8, 16), (2, 5, 16, 8), (2, 1, 8, 8)], ids=str)
def test_equals_diffusers(sizes):
    given = inputs(*sizes)
    assert relative_error(ours_of(*given), theirs_of(*given)) <= TOLERANCE


@pytest.mark.parametrize("elements", [1, 10**9])
def test_slabs_only_round(monkeypatch, elements):
    """A frame, a pixel and a row at a time, and everything at once."""
    given = inputs(2, 3, 8, 8)
    for name in ("UNET", "TOKENS"):
        monkeypatch.setattr(slabs, name, slabs.Budget(elements, elements))
    assert relative_error(ours_of(*given), theirs_of(*given)) <= TOLERANCE


def test_a_row_per_frame_is_a_row_per_clip():
    x, timestep, context, ids = given = inputs(2, 3)
    rows = (value.repeat_interleave(3, dim=0) for value in (timestep, context, ids))
    assert relative_error(ours_of(x, *rows), theirs_of(*given)) <= TOLERANCE
    one = [value[:1] for value in (timestep, context, ids)]
    both = theirs_of(x, *(value.expand(2, *value.shape[1:]) for value in one))
    assert relative_error(ours_of(x, *one), both) <= TOLERANCE


def test_without_a_number_of_frames_all_rows_are_one_clip():
    x, timestep, context, ids = inputs(1, 4)
    y = positions.sinusoid(ids.flatten(), TINY.adm_dim // 3).reshape(1, -1)
    with torch.inference_mode():
        out = pair()[0](x[0], timestep, context, y=y)
    assert torch.equal(out, ours_of(x, timestep, context, ids)[0])


def test_inputs_stay_as_they_are():
    given = inputs()
    before = [value.clone() for value in given]
    ours_of(*given)
    assert all(torch.equal(*values) for values in zip(given, before, strict=True))


class FullAttention(transformer.TokenBlock):
    """The context always attended to, however short."""

    def effect(self, context_bld):
        return context_bld

    def forward(self, x_bld, context_bld, transformer_options):
        y_bld = self.norm1(x_bld)
        x_bld = transformer.add(x_bld, self.attn1(y_bld, y_bld, transformer_options))
        context_bld = context_bld.expand(len(x_bld), -1, -1)
        x_bld = transformer.add(x_bld, self.attn2(self.norm2(x_bld), context_bld, transformer_options))
        return transformer.add_feed_forward(x_bld, self.norm3, self.ff)


def test_one_token_of_context_needs_no_attention(monkeypatch):
    given = inputs(2)
    asked = []
    question = pair()[0].get_submodule("middle_block.1.time_stack.0.attn2.to_q")
    handle = question.register_forward_hook(lambda *_: asked.append(True))
    try:
        collapsed = ours_of(*given)
        assert not asked
        monkeypatch.setattr(transformer.TokenBlock, "effect", FullAttention.effect)
        monkeypatch.setattr(transformer.TokenBlock, "forward", FullAttention.forward)
        full = ours_of(*given)
    finally:
        handle.remove()
    assert asked
    assert relative_error(collapsed, full) <= TOLERANCE


def test_longer_contexts_are_attended_to():
    """Two equal tokens are as good as one; two others are not, and which frame asks matters then."""
    x, timestep, context, ids = inputs(2)
    one = ours_of(x, timestep, context, ids)
    assert relative_error(ours_of(x, timestep, context.repeat(1, 2, 1), ids), one) <= TOLERANCE
    given = inputs(2, tokens=3)
    assert relative_error(ours_of(*given), theirs_of(*given)) <= TOLERANCE
    mean = ours_of(given[0], given[1], given[2].mean(1, keepdim=True), given[3])
    assert relative_error(ours_of(*given), mean) > 0.01


def test_frames_that_are_images_pass_temporal_layers_by():
    """They do not depend on their neighbours; the others do."""
    given, others = inputs(2), list(inputs(2))
    others[0] = others[0].clone()
    others[0][:, 1] += 1.0
    images = torch.tensor([[True, False, True]]).expand(2, 3)
    first, second = (ours_of(*values, image_only_indicator=images) for values in (given, others))
    assert torch.equal(first[:, [0, 2]], second[:, [0, 2]])
    assert relative_error(first[:, 1], second[:, 1]) > 0.01
    flat = ours_of(*given, image_only_indicator=images.flatten().float())
    assert torch.equal(first, flat)
    assert torch.equal(ours_of(*given), ours_of(*given, image_only_indicator=torch.zeros(1)))
    assert relative_error(first, ours_of(*given)) > 0.01


def eps_of_diffusers(monkeypatch):
    for norm in block_norms(pair()[1]):
        monkeypatch.setattr(norm, "eps", 1e-6)


def reversed_mixing(monkeypatch):
    monkeypatch.setattr(
        blocks.TimeMixer,
        "temporal_share",
        lambda self, clips, like: torch.sigmoid(self.mix_factor).view(1, 1, 1, 1),
    )


def frames_first(monkeypatch):
    """Rows ordered frame by frame instead of clip by clip."""
    usual = blocks.Clips.per_frame

    def per_frame(self, rows_bt):
        rows = usual(self, rows_bt)
        return rows.unflatten(0, (-1, self.frames)).transpose(0, 1).flatten(0, 1)

    monkeypatch.setattr(blocks.Clips, "per_frame", per_frame)


def sines_first(monkeypatch):
    usual = positions.sinusoid
    monkeypatch.setattr(positions, "sinusoid", lambda *args: usual(*args).roll(args[1] // 2, dims=-1))


@pytest.mark.parametrize(
    "wrong, least",
    [(eps_of_diffusers, 2e-5), (reversed_mixing, 0.01), (frames_first, 0.01), (sines_first, 0.01)],
)
def test_a_wrong_variant_shows(monkeypatch, wrong, least):
    given = inputs(2)
    given[0].mul_(0.01)  # small activations, where an epsilon counts
    assert relative_error(ours_of(*given), theirs_of(*given)) <= TOLERANCE
    wrong(monkeypatch)
    assert relative_error(ours_of(*given), theirs_of(*given)) > least


def test_training_equals_inference_and_reaches_every_parameter():
    model = SVDUNet(TINY)
    model.load_state_dict(pair()[0].state_dict())
    given = inputs(2, tokens=2)
    v = run(model, *given)
    assert relative_error(v.detach(), ours_of(*given)) <= TOLERANCE
    v.square().mean().backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert not silent


def test_gradients_are_those_of_diffusers():
    model, oracle = SVDUNet(TINY), pair()[1]
    model.load_state_dict(pair()[0].state_dict())
    given = inputs(2)
    weights = dict(oracle.named_parameters())
    try:
        oracle.requires_grad_(True)
        oracle(*given, return_dict=False)[0].square().mean().backward()
        run(model, *given).square().mean().backward()
        renames = keys.DIFFUSERS.rename(weights)
        ours = dict(model.named_parameters())
        for key, parameter in weights.items():
            mine = ours[renames[key]].grad
            if mine is not None:  # what asks a context of one token gets no gradient
                assert relative_error(mine, parameter.grad) <= 1e-4, key
    finally:
        oracle.requires_grad_(False)
        oracle.zero_grad(set_to_none=True)


def test_layers_that_were_taken_over_are_called():
    given, usual = inputs(2), ours_of(*inputs(2))
    calls = set()
    watched = [
        (name, layer)
        for name, layer in pair()[0].named_modules()
        if isinstance(layer, nn.Linear | nn.Conv3d) and not name.endswith(("attn2.to_q", "attn2.to_k"))
    ]
    handles = [layer.register_forward_hook(lambda *_, name=name: calls.add(name)) for name, layer in watched]
    try:
        assert relative_error(ours_of(*given), usual) <= TOLERANCE
    finally:
        for handle in handles:
            handle.remove()
    assert calls == {name for name, _ in watched}


def test_full_size_has_the_parameters_that_were_published():
    with torch.device("meta"):
        model = SVDUNet(SVDConfig())
    assert len(model.state_dict()) == 1428
    assert sum(p.numel() for p in model.parameters()) == 1_524_623_082
    transformers = {
        name: m.proj_in.in_features
        for name, m in model.named_modules()
        if isinstance(m, transformer.VideoTransformer)
    }
    assert transformers == transformer_places(SVDConfig())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x_nchw": torch.zeros(6, 4, 8, 8)}, "takes 8 channels"),
        ({"num_video_frames": 4}, "multiple of 4 rows: got 6"),
        ({"timestep_n": torch.zeros(4)}, r"timestep per frame \(6\), per clip \(2\) or one: got 4"),
        ({"y": None}, "SVD needs y"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {
        "x_nchw": torch.zeros(6, 8, 8, 8),
        "timestep_n": torch.zeros(2),
        "context_nld": torch.zeros(2, 1, TINY.context_dim),
        "y": torch.zeros(2, TINY.adm_dim),
        "num_video_frames": 3,
    }
    with pytest.raises(ValueError, match=message):
        pair()[0](**{**given, **change})


def test_many_short_sequences_are_split(monkeypatch):
    given, usual = inputs(2), ours_of(*inputs(2))
    monkeypatch.setattr(transformer, "MOST_SEQUENCES", 7)
    assert relative_error(ours_of(*given), usual) <= TOLERANCE


@pytest.mark.slow
def test_blocks_compile_without_graph_breaks():
    given = inputs(2)
    usual, used = ours_of(*given), pair()[0].middle_block
    try:
        for layer in used:
            layer.compile(backend="eager", fullgraph=True)
        with torch.no_grad():
            compiled = run(pair()[0], *given)
    finally:
        for layer in used:
            layer._compiled_call_impl = None
    assert relative_error(compiled, usual) <= TOLERANCE
