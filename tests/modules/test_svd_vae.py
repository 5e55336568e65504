"""The SVD autoencoder against diffusers and diffsynth, all weights random."""

import re
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from kinetograph.benchmarks import peers
from kinetograph.modules.families.svd import vae as svd
from kinetograph.modules.families.svd import vae_layers as layers
from kinetograph.modules.layers.operations import TorchOperations

TINY = svd.VAEConfig(channels=(32, 64), quant_conv=True)
DEEP = svd.VAEConfig(channels=(32, 32, 64, 64), quant_conv=True)
RENAMES = (
    (r"^(encoder|decoder)\.conv_norm_out\.", r"\1.norm_out."),
    (r"^decoder\.time_conv_out\.", r"decoder.conv_out.time_mix_conv."),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)\.", r"up.\1.block.\2."),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"\.spatial_res_block\.", "."),
    (r"\.temporal_res_block\.norm1\.", ".time_stack.in_layers.0."),
    (r"\.temporal_res_block\.conv1\.", ".time_stack.in_layers.2."),
    (r"\.temporal_res_block\.norm2\.", ".time_stack.out_layers.0."),
    (r"\.temporal_res_block\.conv2\.", ".time_stack.out_layers.3."),
    (r"\.time_mixer\.mix_factor", ".mix_factor"),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)


def from_diffusers(weights, levels):
    """The weights of diffusers' class under the names of the original checkpoints."""
    renamed = {}
    for key, value in weights.items():
        for pattern, replacement in RENAMES:
            key = re.sub(pattern, replacement, key)
        key = re.sub(r"decoder\.up\.(\d+)", lambda match: f"decoder.up.{levels - 1 - int(match[1])}", key)
        if re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight", key):
            value = value[..., None, None]
        renamed[key] = value
    return renamed


def randomise(model, seed=0):
    """Weights that keep numbers near 1; norms far from the identity, so that they show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.data = noise * (parameter[0].numel() ** -0.5)
        elif "norm" in name and name.endswith("weight"):
            parameter.data = 1 + 0.5 * noise
        else:
            parameter.data = noise * (1.5 if "mix_factor" in name else 0.5)
    return model.eval().requires_grad_(False)


def make_reference(config):
    levels = len(config.channels)
    return randomise(
        peers.load_diffusers().AutoencoderKLTemporalDecoder(
            block_out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            layers_per_block=config.num_res_blocks,
        )
    )


@pytest.fixture(scope="module", params=[TINY, DEEP], ids=["tiny", "deep"])
def reference(request):
    return make_reference(request.param)


@pytest.fixture(scope="module")
def deep():
    return make_reference(DEEP)


def config_of(reference):
    return svd.VAEConfig(channels=tuple(reference.config.block_out_channels), quant_conv=True)


def make(reference, **options):
    config = config_of(reference)
    model = svd.SVDVAE(config, **options)
    model.load_state_dict(from_diffusers(reference.state_dict(), len(config.channels)))
    return model.eval().requires_grad_(False)


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def pixels(frames, height=32, width=24):
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def latents(frames, height=4, width=3):
    return torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(frames))


def decode(reference, z):
    return reference.decode(z, num_frames=len(z)).sample


@pytest.fixture(params=["reusing memory", "differentiable"])
def mode(request):
    return torch.set_grad_enabled(request.param == "differentiable")


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_decode_equals_diffusers(reference, frames, mode):
    z = latents(frames)
    with mode:
        ours = make(reference).decode(z)
    assert relative_error(ours, decode(reference, z)) <= 1e-5


@pytest.mark.parametrize("frames", [1, 3])
def test_encode_equals_diffusers(reference, frames, mode):
    x = pixels(frames)
    with mode:
        mean, log_variance = make(reference).encode_moments(x)
    theirs = reference.encode(x).latent_dist
    assert relative_error(mean, theirs.mode()) <= 1e-5
    assert relative_error(torch.cat([mean, log_variance], dim=1), theirs.parameters) <= 1e-5
