"""Exact ceilings on the memory of the SVD autoencoder at 1024x576 in float16, on tensors that hold no data.

The leanest peer, diffsynth, needs 0.84 GiB a frame, diffusers 1.13 (benchmarks, svd_vae).
"""

from functools import partial

import pytest
import torch

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.modules.families.svd import vae as svd

GIB = 2**30
HEIGHT, WIDTH = 576, 1024


@pytest.fixture(scope="module")
def full_size():
    return svd.SVDVAE(svd.VAEConfig(quant_conv=True), dtype=torch.float16, device="meta")


@torch.inference_mode()
def decode_peak(model, frames):
    z = torch.empty(frames, 4, HEIGHT // 8, WIDTH // 8, dtype=torch.float16, device="meta")
    return peak_live_bytes(partial(model.decode, z))


@torch.inference_mode()
def encode_peak(model, frames):
    x = torch.empty(frames, 3, HEIGHT, WIDTH, dtype=torch.float16, device="meta")
    return peak_live_bytes(partial(model.encode, x))


@pytest.mark.parametrize(
    ("frames", "ceiling"), [(1, 0.43), (4, 1.2), pytest.param(8, 2.35, marks=pytest.mark.slow)]
)
def test_decode(full_size, frames, ceiling):
    """The host frees what is announced: not less than is needed, and no more than a quarter in vain."""
    peak = decode_peak(full_size, frames)
    assert peak <= ceiling * GIB
    numbers = frames * full_size.decode_numbers_per_pixel + full_size.decode_numbers_once_per_pixel
    announced = numbers * HEIGHT * WIDTH * 2
    assert announced / 1.25 <= peak <= announced


def test_encode(full_size):
    """Frames pass one after another: more of them need no more."""
    peak = encode_peak(full_size, 1)
    announced = full_size.encode_numbers_per_pixel * HEIGHT * WIDTH * 2
    assert announced / 1.25 <= peak <= announced
    assert encode_peak(full_size, 8) <= 1.02 * peak
