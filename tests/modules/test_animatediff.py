"""AnimateDiff's modules against diffsynth, against the formula, and against norms over the wrong axis; its schedules."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from einops import rearrange

from kinetograph.benchmarks import peers
from kinetograph.modules.families.animatediff import MODULES, MOTION_MODULE, VERSIONS, model
from kinetograph.modules.families.animatediff.config import MotionConfig
from kinetograph.modules.layers import slabs
from kinetograph.modules.layers.attention import attend
from kinetograph.modules.layers.operations import TorchOperations
from kinetograph.tests.motion_files import CONFIGS, PUBLISHED, randomise

C, H, W = 64, 5, 6
ROUNDING = 2e-6
# ours to diffsynth's
RENAMES = (
    ("attention_blocks.0.pos_encoder.pe", "pe1"),
    ("attention_blocks.1.pos_encoder.pe", "pe2"),
    ("attention_blocks.0.", "attn1."),
    ("attention_blocks.1.", "attn2."),
    ("to_out.0.", "to_out."),
    ("norms.0", "norm1"),
    ("norms.1", "norm2"),
    ("ff_norm", "norm3"),
    ("ff.net.0.proj", "act_fn.proj"),
    ("ff.net.2", "ff"),
)


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def transformer(version="v2", rows=32, tables=2, channels=C, seed=0):
    """One random module of ours; its two tables differ, so that none passes for the other."""
    config = MotionConfig((channels,), version=version, rows=rows, tables=tables)
    made = randomise(model.MotionTransformer(channels, config, TorchOperations, attend), seed)
    for number, attention in enumerate(made.block.attention_blocks):
        if attention.pos_encoder is not None:
            attention.pos_encoder.pe.copy_(model.sinusoid_table(rows, channels) * (1 - 0.3 * number))
    return made


def clips(frames, count=1, channels=C, size=(H, W), seed=1):
    """(count * frames, c, h, w) whose frames differ in mean and size, so that norms over other axes show."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count * frames, channels, *size, generator=generator)
    return x * torch.linspace(0.5, 2, len(x)).view(-1, 1, 1, 1) + torch.linspace(-1, 1, len(x)).view(
        -1, 1, 1, 1
    )


def of_diffsynth(ours):
    """Its TemporalBlock with our weights."""
    theirs = peers.load_diffsynth("sd_motion").TemporalBlock(8, C // 8, C, eps=1e-6)
    weights = {}
    for key, value in ours.state_dict().items():
        for old, new in RENAMES:
            key = key.replace(old, new)
        weights[key] = value
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval().requires_grad_(False)


def run(module, x, frames, graph=False, **more):
    with torch.enable_grad() if graph else torch.no_grad():
        return module(x.clone(), frames, **more)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("frames", [1, 12, 32])
def test_a_module_equals_diffsynth(frames, count):
    """Bit for bit where it is computed whole; of one frame the matrices lie otherwise."""
    ours, x = transformer(), clips(frames, count)
    theirs = of_diffsynth(ours)(x, None, None, None, batch_size=count)[0]
    assert relative(run(ours, x, frames, graph=True), theirs) <= (ROUNDING if frames == 1 else 0.0)
    assert relative(run(ours, x, frames), theirs) <= ROUNDING


def whole_formula(module, x, frames, joint, strength=1.0):
    """The module from its weights alone, in float64: the equations of spec 1.5, clip by clip."""
    w = {key: value.double() for key, value in module.state_dict().items()}

    def linear(name, y):
        bias = w.get(f"{name}.bias")
        y = y @ w[f"{name}.weight"].T
        return y if bias is None else y + bias

    def norm(y, name):
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name, y):
        q, k, v = (linear(f"{name}.to_{part}", y).unflatten(-1, (8, -1)).transpose(1, 2) for part in "qkv")
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return linear(f"{name}.to_out.0", (weights @ v).transpose(1, 2).flatten(2))

    results = []
    for clip in x.double().split(frames):
        groups = clip.unflatten(1, (32, -1))
        axes = (0, 2, 3, 4) if joint else (2, 3, 4)
        normed = (groups - groups.mean(axes, keepdim=True)) / (
            groups.var(axes, correction=0, keepdim=True) + 1e-6
        ).sqrt()
        y = normed.flatten(1, 2) * w["norm.weight"].view(-1, 1, 1) + w["norm.bias"].view(-1, 1, 1)
        y = linear("proj_in", rearrange(y, "t c h w -> (h w) t c"))
        block = "transformer_blocks.0."
        for n in "01":
            table = w[f"{block}attention_blocks.{n}.pos_encoder.pe"][0, :frames]
            y = y + attention(f"{block}attention_blocks.{n}", norm(y, f"{block}norms.{n}") + table)
        value, gate = linear(f"{block}ff.net.0.proj", norm(y, f"{block}ff_norm")).chunk(2, -1)
        y = y + linear(f"{block}ff.net.2", value * torch.nn.functional.gelu(gate))
        change = rearrange(linear("proj_out", y), "(h w) t c -> t c h w", h=x.shape[2])
        results.append(clip + strength * change)
    return torch.cat(results).float()


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_is_the_formula_with_its_norm(version, graph):
    ours, x = transformer(version), clips(7, 2)
    joint = version == "SDXL beta"
    assert relative(run(ours, x, 7, graph), whole_formula(ours, x, 7, joint)) <= ROUNDING
    assert relative(run(ours, x, 7, graph), whole_formula(ours, x, 7, not joint)) > 1e-2


@pytest.mark.parametrize("version", ["v2", "SDXL beta"])
def test_the_wrong_axis_of_diffusers_shows(version):
    """Its norm sees the whole clip whatever the release: right for SDXL beta alone."""
    peers.load_diffusers()
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    ours, x = transformer(version, tables=1), clips(12)
    theirs = AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=C // 8,
        in_channels=C,
        norm_num_groups=32,
        activation_fn="geglu",
        attention_bias=False,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    )
    weights = MOTION_MODULE.dialects["diffusers"].reverse()
    place = "down_blocks.0.motion_modules.0.temporal_transformer."
    named = {place + key: value for key, value in ours.state_dict().items()}
    renamed = weights.rename(named)
    theirs.load_state_dict({renamed[key].split(".", 4)[-1]: value for key, value in named.items()})
    error = relative(run(ours, x, 12), theirs.eval()(x, num_frames=12).detach())
    assert error <= ROUNDING if version == "SDXL beta" else error > 1e-2


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("version", ["v2", "SDXL beta"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_strength_scales_what_is_added(version, strength, graph):
    ours, x = transformer(version), clips(6)
    got = run(ours, x, 6, graph, strength=strength)
    if strength == 0:
        assert torch.equal(got, x)
    assert relative(got, whole_formula(ours, x, 6, version == "SDXL beta", strength)) <= ROUNDING


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("version", ["v2", "SDXL beta"])
def test_clips_of_a_batch_know_nothing_of_one_another(version, graph):
    ours, x = transformer(version), clips(5, 3)
    alone = torch.cat([run(ours, clip, 5, graph) for clip in x.split(5)])
    assert relative(run(ours, x, 5, graph), alone) <= ROUNDING
    # nor pixels, but for the norm
    assert relative(run(ours, x, 15, graph), alone) > 1e-2


@pytest.mark.parametrize("version", ["v2", "SDXL beta"])
@pytest.mark.parametrize("numbers", [1, 7 * 8 * C * 8])
def test_few_pixels_at_once_only_round(monkeypatch, version, numbers):
    ours, x = transformer(version), clips(8, 1)
    usual = run(ours, x, 8, graph=True)
    monkeypatch.setattr(model, "AT_ONCE", slabs.Budget(numbers, numbers))
    assert relative(run(ours, x, 8), usual) <= ROUNDING


@pytest.mark.parametrize(("frames", "count"), [(2, 3), (8, 1)])
def test_no_kernel_is_handed_more_sequences_than_it_takes(monkeypatch, frames, count):
    """Short clips are many sequences: the budget of numbers alone would let them through."""
    monkeypatch.setattr(model, "MOST_SEQUENCES", 96)
    seen = []

    def counting(q, k, v, transformer_options=None):
        seen.append(q.shape[0] * q.shape[1])
        return attend(q, k, v)

    ours = randomise(model.MotionTransformer(C, MotionConfig((C,)), TorchOperations, counting))
    run(ours, clips(frames, count), frames)
    assert seen and max(seen) <= 96 and sum(seen) == 2 * count * H * W * 8


def test_what_comes_in_stays_and_what_goes_out_lies_as_it_came():
    ours, x = transformer(), clips(8)
    for order in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=order)
        kept = given.clone()
        with torch.no_grad():
            got = ours(given, 8)
        assert torch.equal(given, kept) and got.shape == x.shape
        assert relative(got, run(ours, x, 8, graph=True)) <= ROUNDING


@pytest.mark.parametrize(("rows", "tables"), [(24, 2), (32, 1), (64, 0)])
def test_frames_end_where_the_positions_do(rows, tables):
    ours = transformer(rows=rows, tables=tables)
    assert run(ours, clips(rows, size=(2, 2)), rows).isfinite().all()
    with pytest.raises(ValueError, match=f"positions for {rows} frames: got {rows + 1}"):
        run(ours, clips(rows + 1, size=(2, 2)), rows + 1)


def test_a_file_without_tables_has_the_sinusoids_of_diffusers():
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    theirs = SinusoidalPositionalEmbedding(C, 64).pe[0]
    # it computes angles up to 63 in float32
    assert relative(model.sinusoid_table(64, C), theirs) <= 63 * torch.finfo(torch.float32).eps
    held, computed = transformer(rows=64), transformer(rows=64, tables=0)
    for attention in held.block.attention_blocks:
        attention.pos_encoder.pe.copy_(theirs)
    assert relative(run(computed, clips(40), 40), run(held, clips(40), 40)) <= ROUNDING


def test_halves_stay_near():
    ours, x = transformer(), clips(8)
    expected = run(ours, x, 8)
    for dtype, far in ((torch.bfloat16, 0.03), (torch.float16, 0.004)):
        half = run(ours.to(dtype), x.to(dtype), 8)
        assert half.dtype == dtype and relative(half.float(), expected) <= far
        ours = transformer()


def test_a_layer_that_somebody_took_over_is_called():
    ours, x = transformer(), clips(6)
    usual, calls = run(ours, x, 6), []
    hook = ours.block.ff_norm.register_forward_hook(lambda *_: calls.append(1))
    assert relative(run(ours, x, 6), usual) <= ROUNDING and calls
    hook.remove()


def test_training_starts_with_modules_that_change_nothing_and_reaches_every_weight():
    network = MOTION_MODULE.build(CONFIGS["v2"])
    network.start()
    x = clips(4, channels=32)
    with torch.no_grad():
        assert torch.equal(network.down_blocks[0].motion_modules[0](x, 4), x)
    tables = [table for name, table in network.named_buffers() if name.endswith(".pe")]
    assert len(tables) == 42
    assert all(torch.equal(table[0], model.sinusoid_table(32, table.shape[2])) for table in tables)
    module = randomise(network.down_blocks[0].motion_modules[0]).requires_grad_(True)
    module(x, 4).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in module.parameters())


def test_modules_go_behind_the_blocks_of_the_paper():
    """Every block of a level, not its change of size; in the middle of v2 alone."""
    places = {
        version: [place for place, _ in MODULES.insert(MOTION_MODULE.empty(config))]
        for version, config in PUBLISHED.items()
    }
    down = [f"input_blocks.{n}" for n in (1, 2, 4, 5, 7, 8, 10, 11)]
    up = [f"output_blocks.{n}" for n in range(12)]
    assert places["v1"] == places["v3"] == down + up
    assert places["v2"] == places["AnimateLCM"] == [*down, "middle_block", *up]
    assert places["SDXL beta"] == down[:6] + up[:9]


@pytest.mark.parametrize("version", VERSIONS)
def test_schedules_are_those_of_the_training_configurations(version):
    noise = PUBLISHED[version].noise
    if version == "SDXL beta":
        theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.020, beta_schedule="scaled_linear")
        last = 0.000230
    else:
        theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
        last = 0.001579
    assert noise.prediction == "epsilon"
    assert relative(noise.alphas_cumprod(), theirs.alphas_cumprod.double()) <= 1e-5
    assert float(noise.alphas_cumprod()[-1]) == pytest.approx(last, abs=5e-7)
    sigmas = ((1 - theirs.alphas_cumprod) / theirs.alphas_cumprod).double().sqrt()
    assert relative(noise.sigmas(), sigmas) <= 1e-5
