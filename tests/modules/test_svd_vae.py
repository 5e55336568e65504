"""The SVD autoencoder against diffusers and diffsynth, all weights random."""

import re

import pytest
import torch
from torch import nn

from kinetograph.benchmarks import peers
from kinetograph.modules.families.svd import vae as svd
from kinetograph.modules.families.svd import vae_layers as layers
from kinetograph.modules.families.svd.keys import VAE_DIFFUSERS
from kinetograph.modules.layers import slabs
from kinetograph.tests.casting import CastingOperations

TINY = svd.VAEConfig(channels=(32, 64), quant_conv=True)
DEEP = svd.VAEConfig(channels=(32, 32, 64, 96), quant_conv=True)


def from_diffusers(weights, levels=4):
    """The weights of diffusers' class under our names; the table counts up-levels from the fourth."""
    names = VAE_DIFFUSERS.rename(weights)
    ours = {}
    for key, value in weights.items():
        name = re.sub(r"(?<=decoder\.up\.)\d", lambda level: str(int(level[0]) - 4 + levels), names[key])
        pointwise = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        ours[name] = value[..., None, None] if pointwise else value
    return ours


def randomise(model, seed=0):
    """Norms far from the identity, and activations so small that the eps of every norm shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "mix_factor" in name:
            parameter.data = 1.5 * noise
        elif parameter.dim() == 1:
            is_scale = "norm" in name and name.endswith("weight")
            parameter.data = 1 + 0.5 * noise if is_scale else 0.02 * noise
        else:
            loud = ".to_q." in name or ".to_k." in name
            parameter.data = noise * parameter[0].numel() ** -0.5 * (3 if loud else 0.1)
    return model.eval().requires_grad_(False)


def make_reference(config):
    return randomise(
        peers.load_diffusers().AutoencoderKLTemporalDecoder(
            block_out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * len(config.channels),
            layers_per_block=config.num_res_blocks,
        )
    )


@pytest.fixture(scope="module")
def tiny():
    return make_reference(TINY)


@pytest.fixture(scope="module")
def deep():
    """In float64: over so many layers the noise of float32 comes near the tolerance."""
    return make_reference(DEEP).double()


@pytest.fixture(params=["tiny", "deep"])
def reference(request):
    return request.getfixturevalue(request.param)


def make(reference, **options):
    config = svd.VAEConfig(channels=tuple(reference.config.block_out_channels), quant_conv=True)
    model = svd.SVDVAE(config, **{"dtype": reference.dtype, **options})
    model.load_state_dict(from_diffusers(reference.state_dict(), len(config.channels)))
    return model.eval().requires_grad_(False)


def assert_equal(ours, theirs):
    assert relative_error(ours, theirs) <= {torch.float32: 1e-5, torch.float64: 1e-9}[theirs.dtype]


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def pixels(frames, height=16, width=24, dtype=torch.float32):
    generator = torch.Generator().manual_seed(frames)
    return (torch.rand(frames, 3, height, width, generator=generator) * 2 - 1).to(dtype)


def latents(frames, height=3, width=2, dtype=torch.float32):
    return torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(frames)).to(dtype)


def decode(reference, z):
    return reference.decode(z, num_frames=len(z)).sample


@pytest.fixture(params=["reusing memory", "differentiable"])
def mode(request):
    return torch.set_grad_enabled(request.param == "differentiable")


def test_full_size_has_the_keys_and_shapes_of_diffusers():
    ours = svd.SVDVAE(svd.VAEConfig(quant_conv=True), device="meta").state_dict()
    with torch.device("meta"):
        theirs = peers.load_diffusers().AutoencoderKLTemporalDecoder(
            block_out_channels=svd.VAEConfig().channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=2,
        )
    expected = {key: value.shape for key, value in from_diffusers(theirs.state_dict()).items()}
    assert {key: value.shape for key, value in ours.items()} == expected
    counts = [
        sum(key.startswith(f"{half}.") for key in ours) for half in ("encoder", "decoder", "quant_conv")
    ]
    assert counts == [106, 266, 2]  # those of svd_xt.safetensors, whose first stage has no quant_conv
    assert len(svd.SVDVAE(svd.VAEConfig(), device="meta").state_dict()) == 372
    assert len(svd.KLEncoder(svd.VAEConfig(quant_conv=True), device="meta").state_dict()) == 108


@pytest.mark.parametrize("config", [TINY, DEEP, svd.VAEConfig(), svd.VAEConfig(num_res_blocks=1)])
@pytest.mark.parametrize("model", [svd.SVDVAE, svd.KLEncoder])
def test_config_is_read_from_shapes(config, model):
    weights = model(config, device="meta").state_dict()
    assert svd.read_vae_config({key: tuple(value.shape) for key, value in weights.items()}) == config


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_decode_equals_diffusers(reference, frames, mode):
    z = latents(frames, dtype=reference.dtype)
    with mode:
        ours = make(reference).decode(z)
    assert_equal(ours, decode(reference, z))


@pytest.mark.parametrize("frames", [1, 3])
def test_encode_equals_diffusers(reference, frames, mode):
    x = pixels(frames, dtype=reference.dtype)
    with mode:
        mean, log_variance = make(reference).encode_moments(x)
    theirs = reference.encode(x).latent_dist
    assert_equal(mean, theirs.mode())
    assert_equal(torch.cat([mean, log_variance], dim=1), theirs.parameters)


def test_encoder_alone_is_the_same_encoder(tiny):
    whole = make(tiny)
    alone = svd.KLEncoder(TINY)
    alone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("decoder.")})
    with torch.inference_mode():
        assert torch.equal(alone.encode(pixels(2)), whole.encode(pixels(2)))


def reverse_the_blend(model):
    for name, parameter in model.named_parameters():
        if name.endswith("mix_factor"):
            parameter.data.neg_()


def use_temporal_eps_of_diffsynth(model):
    for name, module in model.named_modules():
        if "time_stack" in name and isinstance(module, nn.GroupNorm):
            module.eps = 1e-6


def use_last_eps_of_diffsynth(model):
    model.decoder.norm_out.eps = 1e-5


def leave_the_last_frames_alone(model):
    layer = model.decoder.conv_out.time_mix_conv
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)


@pytest.mark.parametrize(
    "mistake",
    [
        reverse_the_blend,
        use_temporal_eps_of_diffsynth,
        use_last_eps_of_diffsynth,
        leave_the_last_frames_alone,
    ],
)
def test_mistakes_show(tiny, mistake):
    """What other implementations do differently is far outside the tolerance of these tests."""
    z, model = latents(5), make(tiny)
    mistake(model)
    with torch.inference_mode():
        assert relative_error(model.decode(z), decode(tiny, z)) > 1e-4


def test_a_clip_is_more_than_its_frames(tiny):
    z, model = latents(5), make(tiny)
    with torch.inference_mode():
        alone = torch.cat([model.decode(frame) for frame in z.split(1)])
        assert relative_error(alone, model.decode(z)) > 1e-2


@pytest.mark.parametrize("numbers", [200, 2500, 20000])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_parts_change_nothing(deep, numbers, order, monkeypatch):
    """Rows of frames, some frames, some pixels at a time, in either memory order."""
    monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
    model, x, z = make(deep), pixels(3, dtype=deep.dtype), latents(3, dtype=deep.dtype)
    x, z = x.contiguous(memory_format=order), z.contiguous(memory_format=order)
    with torch.inference_mode():
        assert_equal(model.decode(z), decode(deep, z))
        assert_equal(model.decode(z[:1]), decode(deep, z[:1]))
        assert_equal(model.encode(x), deep.encode(x).latent_dist.mode())


def test_inputs_are_left_alone(tiny, monkeypatch):
    x, z, model = pixels(2), latents(3), make(tiny)
    before = x.clone(), z.clone()
    for numbers in (1, slabs.IMAGE_VAE.cpu):
        monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
        with torch.inference_mode():
            model.encode(x)
            model.decode(z)
    assert torch.equal(x, before[0]) and torch.equal(z, before[1])


def test_gradients_equal_those_of_diffusers(tiny):
    ours, x = make(tiny).requires_grad_(True), pixels(3)
    tiny.requires_grad_(True)
    try:
        ours.decode(ours.encode(x)).square().mean().backward()
        decode(tiny, tiny.encode(x).latent_dist.mode()).square().mean().backward()
        theirs = from_diffusers({key: value.grad for key, value in tiny.named_parameters()}, 2)
        largest = max(gradient.abs().max() for gradient in theirs.values())
        for name, parameter in ours.named_parameters():
            assert (parameter.grad - theirs[name]).abs().max() <= 1e-5 * largest, name
    finally:
        tiny.requires_grad_(False).zero_grad()


def test_one_block_per_resolution_trains():
    model = randomise(svd.SVDVAE(svd.VAEConfig(channels=(32, 32, 64), num_res_blocks=1))).requires_grad_(True)
    model.decode(model.encode(pixels(2))).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters() if parameter.numel() > 8)


@pytest.mark.parametrize("size", [(20, 16), (16, 12)])
def test_sizes_are_checked(deep, size):
    with pytest.raises(ValueError, match="multiples of 8"):
        make(deep).encode(pixels(1, *size))


def test_channels_are_checked(deep):
    with pytest.raises(ValueError, match="got 4 channels"):
        make(deep).encode(torch.zeros(1, 4, 16, 16))


@pytest.mark.parametrize("numbers", [500, slabs.IMAGE_VAE.cpu])
def test_an_attention_of_the_hosts(tiny, numbers, monkeypatch):
    """It is called with one head and gets no more than so many pairs."""
    monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
    sizes = []

    def attention(q_bhld, k_bhld, v_bhld, transformer_options=None):
        sizes.append(q_bhld.shape[0] * q_bhld.shape[2] * k_bhld.shape[2])
        return layers.nn.functional.scaled_dot_product_attention(q_bhld, k_bhld, v_bhld)[:, 0]

    z = latents(3, 6, 5)
    with torch.inference_mode():
        assert_equal(make(tiny, attention=attention).decode(z), decode(tiny, z))
    assert sizes and max(sizes) <= numbers and sum(sizes) == 3 * 30 * 30


@pytest.mark.parametrize("numbers", [2500, slabs.IMAGE_VAE.cpu])
def test_an_adapter_on_a_convolution_is_called(tiny, numbers, monkeypatch):
    """ComfyUI's bypass adapters replace a layer's forward: 3x3, doubled and temporal ones alike."""
    monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
    model, called = make(tiny), set()
    names = ("up.1.upsample.conv", "up.0.block.0.conv1", "up.0.block.0.time_stack.in_layers.2")
    for name in names:
        layer = model.decoder.get_submodule(name)

        def bypass(x, layer=layer, name=name):
            called.add(name)
            return type(layer).forward(layer, x)

        layer.forward = bypass
    z = latents(3, 5, 5)
    with torch.inference_mode():
        assert_equal(model.decode(z), decode(tiny, z))
    assert called == set(names)


@pytest.mark.parametrize("numbers", [2500, slabs.IMAGE_VAE.cpu])
def test_weights_that_rest_in_another_dtype(tiny, mode, numbers, monkeypatch):
    monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
    ours = make(tiny, ops=CastingOperations, dtype=torch.float64)
    x, z = pixels(2), latents(3)
    with mode:
        assert_equal(ours.encode(x), tiny.encode(x).latent_dist.mode())
        assert_equal(ours.decode(z), decode(tiny, z))


@pytest.mark.parametrize("numbers", [2500, slabs.IMAGE_VAE.cpu])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near(deep, dtype, numbers, monkeypatch):
    """No farther from the exact picture than diffusers in the same dtype, give or take its luck."""
    monkeypatch.setattr(slabs, "IMAGE_VAE", slabs.Budget(numbers, numbers))
    z = latents(3, dtype=dtype)
    exact, low = decode(deep, z.double()), make_reference(DEEP).to(dtype)
    with torch.inference_mode():
        ours = relative_error(make(deep).to(dtype).decode(z).double(), exact)
        theirs = relative_error(decode(low, z).double(), exact)
    assert ours <= 1.5 * theirs


def test_diffsynth_decoder_agrees_with_the_originals_eps():
    module = peers.load_diffsynth("svd_vae_decoder")
    ours = randomise(svd.SVDVAE(svd.VAEConfig()))
    peer = module.SVDVAEDecoder()
    weights = {f"first_stage_model.{key}": value for key, value in ours.state_dict().items()}
    peer.load_state_dict(peer.state_dict_converter().from_civitai(weights))
    for block in peer.blocks:
        if isinstance(block, module.TemporalResnetBlock):
            block.norm1.eps = block.norm2.eps = 1e-5
    peer.conv_norm_out.eps = 1e-6
    z = latents(2, 2, 2)
    with torch.inference_mode():
        theirs = peer((z * peer.scaling_factor).transpose(0, 1)).transpose(0, 1)
        assert_equal(ours.decode(z), theirs)
