"""Our SVD UNet against ComfyUI's own, with the same weights."""

from importlib import import_module

import pytest
import torch

from kinetograph.benchmarks.cases import svd_unet
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.model import SVDUNet

pytestmark = pytest.mark.newest

TINY = SVDConfig(channels=(32, 64, 64, 64), head_dim=32, context_dim=32, adm_dim=96)


@pytest.fixture(scope="module")
def pair(comfy_here):
    """Ours, and the host's as its detection would configure it."""
    model = SVDUNet(TINY).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1.0
        parameter.normal_(0, 1.5 / fan**0.5 if fan > 1 else 1.0, generator=generator)
    return model, svd_unet.host_unet(TINY, model.state_dict(), torch.float32, "cpu", import_module)


@pytest.mark.parametrize("clips, frames, images", [(1, 3, ()), (2, 5, ()), (2, 3, (0, 2))])
def test_equals_the_hosts_network(pair, clips, frames, images):
    ours, theirs = pair
    n = clips * frames
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 8, 8, 16, generator=generator)
    context = torch.randn(clips, 1, TINY.context_dim, generator=generator).repeat_interleave(frames, 0)
    y = torch.randn(clips, TINY.adm_dim, generator=generator).repeat_interleave(frames, 0)
    timestep = torch.tensor([1.3, -0.4])[:clips].repeat_interleave(frames)
    indicator = torch.zeros(clips, frames)
    indicator[:, list(images)] = 1.0
    more = {"num_video_frames": frames, "image_only_indicator": indicator}
    with torch.inference_mode():
        expected = theirs(x, timestep, context, y, **more)
        got = ours(x, timestep, context, y=y, **more)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
