"""The CogVideoX transformer against diffusers and diffsynth, and against what they or the host get wrong."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.cogvideox.model import CogVideoXTransformer
from kinetograph.modules.layers import positions, slabs

TINY = CogVideoXConfig(
    num_layers=2,
    num_heads=2,
    head_dim=16,
    time_embed_dim=8,
    text_dim=12,
    max_text_tokens=5,
    sample_width=12,
    sample_height=8,
    sample_frames=9,
)
LEARNED = 5 + 3 * 4 * 6
VARIANTS = {
    "2B": replace(TINY, rotary=False),
    "5B": TINY,
    "5B-I2V": replace(TINY, in_channels=32, learned_positions=LEARNED),
    "1.5-5B": replace(TINY, patch_size_t=2, sample_width=40, sample_height=40),
    "1.5-5B-I2V": replace(TINY, patch_size_t=2, sample_width=40, sample_height=40, in_channels=32, ofs_dim=8),
}


def randomise(model, seed=0):
    """Random weights under which everything counts: with small ones attention is uniform, gates are shut."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        sharp = name.endswith(("norm_q.weight", "norm_k.weight"))
        tensor.data.normal_(0, 2.0 if sharp else 1.0 if tensor.dim() == 1 else 0.2, generator=generator)
    return model


def reference(config):
    """diffusers' model, all weights random, its fixed table of 2B as it was."""
    oracle = randomise(
        peers.load_diffusers()
        .CogVideoXTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            num_layers=config.num_layers,
            in_channels=config.in_channels,
            time_embed_dim=config.time_embed_dim,
            text_embed_dim=config.text_dim,
            sample_width=config.sample_width,
            sample_height=config.sample_height,
            sample_frames=config.sample_frames,
            max_text_seq_length=config.max_text_tokens,
            patch_size_t=2 if config.patch_size_t == 2 else None,
            use_rotary_positional_embeddings=config.rotary,
            use_learned_positional_embeddings=bool(config.learned_positions),
            ofs_embed_dim=config.ofs_dim or None,
        )
        .eval()
    )
    embed = oracle.patch_embed
    if hasattr(embed, "pos_embedding") and not embed.use_learned_positional_embeddings:
        embed.pos_embedding.copy_(
            embed._get_positional_embeddings(embed.sample_height, embed.sample_width, embed.sample_frames)
        )
    return oracle.requires_grad_(False)


def ours_from(config, oracle):
    model = CogVideoXTransformer(config).eval().requires_grad_(False)
    model.load_state_dict(oracle.state_dict(), strict=True)
    return model


def inputs(config, t=3, h=8, w=12, batch=2, tokens=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, t, h, w, generator=generator)
    context = torch.randn(batch, tokens, config.text_dim, generator=generator)
    timestep = torch.tensor([999.0, 479.0])[:batch]
    return x, timestep, context


def tables_of(angles):
    """diffusers' cosine and sine tables of the rotations of every channel pair."""
    angles = torch.from_numpy(np.repeat(angles, 2, axis=1))
    return angles.cos().float(), angles.sin().float()


def angles_of(config, rows, columns, t):
    """Rotations by coordinates, written out plainly: a quarter time, three eighths each row and column."""
    angles = []
    for time in range(t):
        for row in rows:
            for column in columns:
                d = config.head_dim
                widths = ((time, d // 4), (row, d // 8 * 3), (column, d // 8 * 3))
                angles.append([p / 1e4 ** (2 * i / n) for p, n in widths for i in range(n // 2)])
    return np.array(angles)


def right_angles(config, t, h, w):
    h, w, t = h // 2, w // 2, t // config.patch_size_t
    if config.patch_size_t == 2:
        return angles_of(config, np.arange(h), np.arange(w), t)
    base = (config.sample_height // 2, config.sample_width // 2)
    (top, left), (bottom, right) = positions.crop_region((h, w), base)
    rows = np.linspace(top, bottom, h, endpoint=False)
    return angles_of(config, rows, np.linspace(left, right, w, endpoint=False), t)


def run(model, *args, **kwargs):
    with torch.inference_mode():
        return model(*args, **kwargs)


def run_reference(oracle, config, x, timestep, context, angles=None, ofs=2.0):
    if angles is None and config.rotary:
        angles = right_angles(config, *x.shape[2:])
    tables = tables_of(angles) if angles is not None else None
    ofs_b = torch.full((len(x),), ofs) if config.ofs_dim else None
    frames_first = x.transpose(1, 2)
    out = run(oracle, frames_first, context, timestep, ofs=ofs_b, image_rotary_emb=tables, return_dict=False)
    return out[0].transpose(1, 2)


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def latent_frames(config):
    return 4 if config.patch_size_t == 2 else 3


def both(variant, **sizes):
    """Our model and diffusers' with the same weights, and inputs for them."""
    config = VARIANTS[variant]
    oracle = reference(config)
    sizes = {"t": latent_frames(config), **sizes}
    return ours_from(config, oracle), oracle, inputs(config, **sizes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_diffusers(variant):
    model, oracle, given = both(variant)
    expected = run_reference(oracle, model.config, *given)
    assert relative_error(run(model, *given), expected) <= 1e-5


@pytest.mark.parametrize("variant", ["2B", "5B", "1.5-5B"])
def test_equals_diffusers_at_other_sizes(variant):
    model, oracle, given = both(variant, t=2, h=10, w=6, batch=1)
    assert relative_error(run(model, *given), run_reference(oracle, model.config, *given)) <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_records_the_same_function_in_a_graph(variant):
    model, oracle, given = both(variant)
    model.requires_grad_(True)
    oracle.requires_grad_(True)
    config = model.config
    tables = tables_of(right_angles(config, *given[0].shape[2:])) if config.rotary else None
    ofs_b = torch.full((2,), 2.0) if config.ofs_dim else None
    x, timestep, context = given
    theirs = oracle(
        x.transpose(1, 2), context, timestep, ofs=ofs_b, image_rotary_emb=tables, return_dict=False
    )
    ours = model(*given)
    assert relative_error(ours.detach(), theirs[0].transpose(1, 2).detach()) <= 1e-5
    ours.square().mean().backward()
    theirs[0].square().mean().backward()
    expected = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        if name in expected:  # a bias of the keys has no gradient but noise: softmax does not see it
            assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6), name


def test_inference_before_training_leaves_usable_tables():
    for variant in ("2B", "5B"):
        model, _, given = both(variant)
        expected = run(model, *given)
        model.requires_grad_(True)
        out = model(*given)
        out.sum().backward()
        assert relative_error(out.detach(), expected) <= 1e-5


def test_equals_diffsynth():
    """diffsynth has 48 heads built in and knows 5B only."""
    try:
        cog_dit = peers.load_diffsynth("cog_dit")
    except ImportError as absent:
        pytest.skip(str(absent))
    config = replace(TINY, num_heads=48, num_layers=1)
    oracle = cog_dit.CogDiT.__new__(cog_dit.CogDiT)
    torch.nn.Module.__init__(oracle)
    oracle.patchify = cog_dit.CogPatchify(16, config.width, 2)
    oracle.time_embedder = cog_dit.TimestepEmbeddings(config.width, config.time_embed_dim)
    oracle.context_embedder = torch.nn.Linear(config.text_dim, config.width)
    block = cog_dit.CogDiTBlock(config.width, config.time_embed_dim, 48)
    oracle.blocks = torch.nn.ModuleList([block])
    oracle.norm_final = torch.nn.LayerNorm(config.width, eps=1e-5)
    oracle.norm_out = cog_dit.CogAdaLayerNorm(config.width, config.time_embed_dim, single=True)
    oracle.proj_out = torch.nn.Linear(config.width, 64)
    model = randomise(CogVideoXTransformer(config)).eval()
    oracle.load_state_dict(cog_dit.CogDiT.state_dict_converter().from_diffusers(model.state_dict()))
    x, timestep, context = inputs(config)
    tables = tables_of(right_angles(config, *x.shape[2:]))
    with torch.inference_mode():
        expected = oracle(x, timestep, context, image_rotary_emb=tables)
    assert relative_error(run(model, x, timestep, context), expected) <= 1e-5


def test_rotary_crop_vector():
    """Head 16, two frames, a 6x4 grid in a base of 4x6: the last token's cosines."""
    assert positions.crop_region((6, 4), (4, 6)) == ((0, 2), (4, 5))
    assert positions.crop_region((48, 84), (30, 45)) == ((2, 0), (28, 45))
    rows, columns = positions.crop_coordinates((6, 4), (4, 6))
    angles = positions.rotary_angles(np.arange(2), rows, columns, 16)
    table = positions.rotary_table(angles, torch.device("cpu"))
    last = table[-1].real.repeat_interleave(2)[:11]
    expected = [0.5403, 0.5403, 0.99995, 0.99995, -0.98167, -0.98167, 0.98805, 0.98805, 0.99997, 0.99997]
    assert torch.allclose(last, torch.tensor([*expected, -0.44609]), atol=1e-5)


OFF_CENTRE = {"t": 2, "h": 10, "w": 6}  # fitted into 4x6 this grid starts at column 2


def wrong_by(variant, angles, **sizes):
    """How far our output is from diffusers' under other rotations; equal rotations would give 0."""
    model, oracle, given = both(variant, **sizes)
    return relative_error(run(model, *given), run_reference(oracle, model.config, *given, angles=angles))


def test_rotary_is_not_diffusers_linspace():
    """diffusers 0.42 runs to stop (n - 1) / n whatever the start, which is wrong for an offset crop."""
    (top, left), (bottom, right) = positions.crop_region((5, 3), (4, 6))
    assert left > 0
    rows, columns = np.linspace(top, bottom * 4 / 5, 5), np.linspace(left, right * 2 / 3, 3)
    assert wrong_by("5B", angles_of(TINY, rows, columns, 2), **OFF_CENTRE) > 1e-2


def test_rotary_is_not_the_hosts_scaled_index():
    """ComfyUI 0.30 turns by index * 1.875 and fits nothing into the base grid."""
    angles = angles_of(TINY, np.arange(5) * 1.875, np.arange(3) * 1.875, 2)
    assert wrong_by("5B", angles, **OFF_CENTRE) > 1e-2


def test_rotary_of_first_release_is_not_a_plain_index():
    angles = angles_of(TINY, np.arange(5), np.arange(3), 2)
    assert wrong_by("5B", angles, **OFF_CENTRE) > 1e-2


def test_rotary_of_second_release_is_a_plain_index():
    """1.5 counts tokens, also beyond its base grid, and frames in twos."""
    config = VARIANTS["1.5-5B"]
    angles = angles_of(config, np.arange(22), np.arange(2), 2)
    assert wrong_by("1.5-5B", angles, t=4, h=44, w=4) <= 1e-5


def test_image_to_video_is_rotary_and_learned():
    """ComfyUI 0.30 switches the rotation of 5B-I2V off."""
    model, oracle, given = both("5B-I2V")
    still = np.zeros_like(right_angles(model.config, *given[0].shape[2:]))
    assert wrong_by("5B-I2V", still) > 1e-2


def test_2b_does_not_rotate():
    """ComfyUI 0.30 takes 2B for a rotary model."""
    model, oracle, given = both("2B")
    angles = right_angles(model.config, *given[0].shape[2:])
    assert wrong_by("2B", angles) > 1e-2
    assert wrong_by("2B", None) <= 1e-5


def hosts_sincos(t, h, w, width):
    """Thirds for time, height and width, cosines first: the split of ComfyUI 0.30."""

    def axis(places):
        angles = np.outer(places, 1e4 ** -(np.arange(width // 6) / (width // 6)))
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    times, rows, columns = axis(np.arange(t)), axis(np.arange(h) / 1.875), axis(np.arange(w) / 1.875)
    table = [[times[i], rows[j], columns[k]] for i in range(t) for j in range(h) for k in range(w)]
    return torch.from_numpy(np.array(table).reshape(t * h * w, width)).float()


def test_2b_is_not_the_hosts_sincos():
    config = replace(VARIANTS["2B"], num_heads=3)  # a width that thirds divide
    oracle = reference(config)
    model, given = ours_from(config, oracle), inputs(config)
    expected = run_reference(oracle, config, *given)
    assert relative_error(run(model, *given), expected) <= 1e-5
    oracle.patch_embed.pos_embedding[:, 5:] = hosts_sincos(3, 4, 6, config.width)
    assert relative_error(run(model, *given), run_reference(oracle, config, *given)) > 1e-2


def test_learned_positions_are_sliced_for_shorter_clips():
    """diffusers puts sin-cos in their place when the clip is not as long as the table."""
    model, oracle, given = both("5B-I2V", t=2)
    regenerated = run_reference(oracle, model.config, *given)
    assert relative_error(run(model, *given), regenerated) > 1e-2
    whole = oracle.patch_embed.pos_embedding
    oracle.patch_embed.pos_embedding = whole[:, : 5 + 2 * 4 * 6].clone()
    oracle.patch_embed.sample_frames = 5
    assert relative_error(run(model, *given), run_reference(oracle, model.config, *given)) <= 1e-5


@pytest.mark.parametrize("sizes", [{"h": 10}, {"w": 10}, {"t": 4}, {"tokens": 6}])
def test_learned_positions_name_the_size_they_were_made_for(sizes):
    model, _, given = both("5B-I2V", **sizes)
    with pytest.raises(ValueError, match="96x64 pixels, at most 9 frames and 5 text tokens"):
        run(model, *given)


def test_ofs_is_two_unless_given():
    model, oracle, given = both("1.5-5B-I2V")
    default = run(model, *given)
    assert torch.equal(default, run(model, *given, ofs_b=torch.full((2,), 2.0)))
    other = run(model, *given, ofs_b=torch.full((2,), 1.0))
    assert relative_error(other, run_reference(oracle, model.config, *given, ofs=1.0)) <= 1e-5
    assert relative_error(other, default) > 1e-4


def test_any_text_length_fits_where_positions_are_computed():
    for variant in ("2B", "5B"):
        model, _, given = both(variant, tokens=9)
        assert run(model, *given).isfinite().all()


@pytest.mark.parametrize(
    "variant, sizes, legal",
    [
        ("1.5-5B", {"t": 3}, "use 2 or 4"),
        ("5B", {"h": 7}, "multiples of 2"),
    ],
)
def test_sizes_that_fill_no_patch_are_refused(variant, sizes, legal):
    model, _, given = both(variant, **sizes)
    with pytest.raises(ValueError, match=legal):
        run(model, *given)


def test_wrong_channels_are_refused():
    model, _, (x, timestep, context) = both("5B-I2V")
    with pytest.raises(ValueError, match="takes 32 latent channels: got 16"):
        run(model, x[:, :16], timestep, context)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
def test_half_precision_stays_near(dtype, tolerance):
    model, _, (x, timestep, context) = both("5B")
    expected = run(model, x, timestep, context)
    out = run(model.to(dtype), x.to(dtype), timestep, context.to(dtype))
    assert out.dtype == dtype
    assert relative_error(out.float(), expected) <= tolerance


def test_blocks_of_tokens_give_the_same(monkeypatch):
    model, _, given = both("5B")
    expected = run(model, *given)
    seven_tokens = 7 * 4 * TINY.width
    monkeypatch.setattr(slabs, "TOKENS", slabs.Budget(seven_tokens, seven_tokens))
    assert relative_error(run(model, *given), expected) <= 1e-6
    half = run(model.bfloat16(), given[0].bfloat16(), given[1], given[2].bfloat16())
    assert relative_error(half.float(), expected) <= 5e-2


def test_inputs_are_left_alone():
    model, _, given = both("5B")
    before = [tensor.clone() for tensor in given]
    run(model, *given)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_tables_are_kept_few_and_copied_never():
    model, _, given = both("5B", t=2)
    expected = run(model, *given)
    table = model._rotary((2, 4, 6), given[0].device)
    assert model._rotary((2, 4, 6), given[0].device) is table
    for width in range(4, 24, 2):
        run(model, *inputs(TINY, t=1, h=4, w=width))
    assert len(model._tables) <= model._tables.size
    copied = copy.deepcopy(model)
    assert len(copied._tables) == 0
    assert torch.equal(run(copied, *given), expected)


PUBLISHED = {
    "2B": (CogVideoXConfig(num_layers=30, num_heads=30, rotary=False), 736),
    "5B": (CogVideoXConfig(), 1024),
    "5B-I2V": (CogVideoXConfig(in_channels=32, learned_positions=17776), 1025),
    "1.5-5B": (CogVideoXConfig(patch_size_t=2), 1024),
    "1.5-5B-I2V": (CogVideoXConfig(patch_size_t=2, in_channels=32, ofs_dim=512), 1028),
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_key_counts(variant):
    config, count = PUBLISHED[variant]
    model = CogVideoXTransformer(config, device="meta", dtype=torch.bfloat16)
    assert len(model.state_dict()) == count
    assert config.variant == variant
    assert model.dtype == torch.bfloat16


def test_activation_peak_at_full_size():
    """5B, 49 frames of 480x720 and CFG batch 2 in bf16: diffusers 0.42.1 takes 2.63 GiB."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = CogVideoXTransformer(CogVideoXConfig(num_layers=2), dtype=torch.bfloat16)
        x = torch.empty(2, 16, 13, 60, 90, dtype=torch.bfloat16)
        context = torch.empty(2, 226, 4096, dtype=torch.bfloat16)
        timestep = torch.empty(2)
        peak = peak_live_bytes(lambda: run(model, x, timestep, context))
    assert peak <= 1.03 * 2**30


def test_peak_is_what_a_run_holds_at_once():
    x = torch.ones(1000)
    assert peak_live_bytes(lambda: ((x.view(10, 100) * 2).sum(), x.add_(1))) == 4000 + 4
