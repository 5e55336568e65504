"""The SVD autoencoder against the host's own, with the same tensors under the same names."""

import pytest
import torch

from kinetograph.modules.families.svd.vae import SVDVAE, VAEConfig
from kinetograph.tests import tiny_svd

pytestmark = pytest.mark.newest

CONFIG = VAEConfig(channels=(32, 32, 64, 96))


@pytest.fixture(scope="module")
def ours():
    """In float64: over so many layers the noise of float32 comes near any tolerance that means something."""
    return tiny_svd.randomise(SVDVAE(CONFIG, dtype=torch.float64), 0).requires_grad_(False)


@pytest.fixture(scope="module")
def host_autoencoder(comfy_here):
    """Its encoder and its temporal decoder, as `comfy.sd.VAE` sets them up for an svd_xt checkpoint."""
    from comfy.ldm.modules.diffusionmodules.model import Encoder
    from comfy.ldm.modules.temporal_ae import VideoDecoder

    sizes = {
        "ch": CONFIG.channels[0],
        "ch_mult": [width // CONFIG.channels[0] for width in CONFIG.channels],
        "num_res_blocks": CONFIG.num_res_blocks,
        "z_channels": CONFIG.latent_channels,
        "in_channels": 3,
        "out_ch": 3,
        "resolution": 256,
        "attn_resolutions": [],
    }
    halves = {
        "encoder": Encoder(double_z=True, **sizes),
        "decoder": VideoDecoder(video_kernel_size=[3, 1, 1], alpha=0.0, **sizes),
    }
    return torch.nn.ModuleDict(halves).double().eval()


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def test_the_hosts_autoencoder_agrees(ours, host_autoencoder):
    host_autoencoder.load_state_dict(ours.state_dict())  # also that not a name or a shape differs
    generator = torch.Generator().manual_seed(0)
    for frames in (1, 5):
        z = torch.randn(frames, 4, 3, 4, generator=generator, dtype=torch.float64)
        assert relative_error(ours.decode(z), host_autoencoder["decoder"](z)) <= 1e-9
    x = torch.rand(2, 3, 32, 24, generator=generator, dtype=torch.float64) * 2 - 1
    mean, log_variance = ours.encode_moments(x)
    assert relative_error(torch.cat([mean, log_variance], dim=1), host_autoencoder["encoder"](x)) <= 1e-9


@torch.inference_mode()
def test_the_hosts_blend_weights_the_temporal_half(ours, host_autoencoder):
    """Its share is that of the temporal half, as ours: reversed factors give another picture."""
    weights = {k: -v if k.endswith("mix_factor") else v for k, v in ours.state_dict().items()}
    host_autoencoder.load_state_dict(weights)
    z = torch.randn(4, 4, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert relative_error(ours.decode(z), host_autoencoder["decoder"](z)) > 1e-2
