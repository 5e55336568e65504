"""Exact ceilings on the memory of the CogVideoX autoencoder, counted on tensors that hold no data."""

from functools import partial

import pytest
import torch

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.modules.families.cogvideox import vae as cog
from kinetograph.modules.families.cogvideox.vae_layers import CausalCache

GIB = 2**30


@pytest.fixture(scope="module")
def full_size():
    return cog.CogVideoXVAE(cog.VAEConfig(), dtype=torch.bfloat16, device="meta")


@torch.inference_mode()
def decode(model, latents, width, height):
    for chunk in model.decode_stream(
        torch.empty(1, 16, latents, height // 8, width // 8, dtype=model.dtype, device="meta")
    ):
        del chunk


@torch.inference_mode()
def encode(model, frames, width, height):
    pieces = [8] * (frames // 8) + [frames % 8]
    clips = (torch.empty(1, 3, n, height, width, dtype=model.dtype, device="meta") for n in pieces if n)
    for moments in model.encode_stream(clips, frames):
        del moments


def test_exact_decode_at_480x720(full_size):
    """Two chunks, the second with every cache full: longer clips need no more. The host frees what is announced."""
    peak = peak_live_bytes(partial(decode, full_size, 5, 720, 480))
    assert peak <= 5.2 * GIB
    announced = full_size.numbers_per_pixel * 720 * 480 * 2
    assert 0.9 * announced <= peak <= announced


@pytest.mark.slow
def test_decode_with_caches_held_elsewhere(full_size, monkeypatch):
    """What stays on the device when `cache_device` is another one: tensors without data cannot be moved."""

    def restore(self, layer, into_bcthw):
        return self._frames.pop(layer, None) is not None

    monkeypatch.setattr(CausalCache, "put", lambda self, layer, frames: self._frames.update({layer: layer}))
    monkeypatch.setattr(CausalCache, "restore", restore)
    assert peak_live_bytes(partial(decode, full_size, 5, 720, 480)) <= 3 * GIB


@pytest.mark.slow
def test_encode_at_480x720(full_size):
    assert peak_live_bytes(partial(encode, full_size, 17, 720, 480)) <= 3.6 * GIB


@pytest.mark.parametrize("work", [decode, encode])
def test_memory_does_not_grow_with_the_clip(full_size, work):
    counts = (5, 33) if work is decode else (17, 129)
    short, long = (peak_live_bytes(partial(work, full_size, count, 64, 32)) for count in counts)
    assert long <= 1.02 * short
