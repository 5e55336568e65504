"""The host's VAE nodes on our VAE: counts and sizes, and the same frames as our own node."""

import inspect

import pytest
import torch

from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, relative, run

FRAMES = [1, 9, 17]
TILES = {"tile_size": 64, "overlap": 32, "temporal_size": 8, "temporal_overlap": 4}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


def pictures(frames, height=64, width=64):
    return torch.rand((frames, height, width, 3), generator=torch.Generator().manual_seed(frames))


def encode(bench, kind, pixels, **changes):
    return run(getattr(bench.host, kind), vae=bench.shared()[2], pixels=pixels, **changes)[0]["samples"]


def decode(bench, kind, samples, **changes):
    return run(getattr(bench.host, kind), vae=bench.shared()[2], samples={"samples": samples}, **changes)[0]


def tiles(bench, kind):
    known = inspect.signature(
        getattr(getattr(bench.host, kind), getattr(bench.host, kind).FUNCTION)
    ).parameters
    return {name: value for name, value in TILES.items() if name in known}


@pytest.mark.parametrize("frames", FRAMES)
def test_there_and_back(bench, frames):
    samples = encode(bench, "VAEEncode", pictures(frames))
    assert samples.shape == (1, 16, (frames - 1) // 4 + 1, 8, 8)
    images = decode(bench, "VAEDecode", samples)
    assert images.shape == (frames, 64, 64, 3) and images.std() > 0.01
    assert 0 <= images.min() and images.max() <= 1
    chunked = bench.ours["VAEDecodeChunked"]
    ours = run(chunked, vae=bench.shared()[2], latent={"samples": samples}, chunk=0, overlap=2)[0]
    assert torch.equal(ours, images)


@pytest.mark.parametrize("frames", FRAMES)
def test_tiled(bench, frames):
    samples = encode(bench, "VAEEncodeTiled", pictures(frames, 64, 96), **tiles(bench, "VAEEncodeTiled"))
    assert samples.shape == (1, 16, (frames - 1) // 4 + 1, 8, 12)
    images = decode(bench, "VAEDecodeTiled", samples, **tiles(bench, "VAEDecodeTiled"))
    assert images.shape == (frames, 64, 96, 3) and images.isfinite().all() and images.std() > 0.01


def test_tiles_lie_where_they_belong(bench):
    """Two latents a tile, one shared: the frames that only one tile has are that tile's own."""
    samples = bench.clip(9)["samples"]
    tiled = decode(bench, "VAEDecodeTiled", samples, **tiles(bench, "VAEDecodeTiled"))
    first, second = (decode(bench, "VAEDecode", samples[:, :, start : start + 2]) for start in (0, 1))
    images = tiled.reshape(9, 64, 64, 3)
    assert relative(images[:4], first[3:7]) < 1e-5
    assert relative(images[5:], second[4:]) < 1e-5


def test_one_tile_is_the_whole(bench):
    """A tile as large as the clip gives what the whole gives."""
    large = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    samples = encode(bench, "VAEEncode", pictures(9))
    assert relative(encode(bench, "VAEEncodeTiled", pictures(9), **large), samples) < 1e-5
    whole = decode(bench, "VAEDecode", samples)
    assert relative(decode(bench, "VAEDecodeTiled", samples, **large), whole) < 1e-5


def test_a_batch_is_its_clips(bench):
    samples = torch.cat([bench.clip(9, seed=seed)["samples"] for seed in (0, 1)])
    both = decode(bench, "VAEDecode", samples)
    each = [decode(bench, "VAEDecode", clip[None]) for clip in samples]
    assert torch.equal(both, torch.cat(each))


def test_transparent_pictures(bench):
    """LoadImage and its like may bring a fourth channel."""
    pixels = pictures(9)
    with_alpha = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    for kind in ("VAEEncode", "VAEEncodeTiled"):
        tiled = tiles(bench, kind)
        assert torch.equal(encode(bench, kind, with_alpha, **tiled), encode(bench, kind, pixels, **tiled))


@pytest.mark.parametrize("kind", ["VAEEncode", "VAEEncodeTiled"])
@pytest.mark.parametrize(
    ("size", "words"),
    [((9, 64, 68), "multiples? of"), ((9, 60, 64), "multiples? of"), ((8, 64, 64), "8, use 5 or 9")],
)
def test_what_does_not_fold_is_refused(bench, kind, size, words):
    with pytest.raises(ValueError, match=words):
        encode(bench, kind, pictures(*size), **tiles(bench, kind))


def test_building_a_vae_leaves_no_warning_and_no_trace_of_an_empty_one(bench, caplog):
    """The log of the host, and what its own VAE without weights has and ours must not."""
    import comfy.model_management

    caplog.set_level("INFO")
    for vae in (bench.load()[2], SVDWorkbench().svd()[2]):
        weights = comfy.model_management.module_size(vae.first_stage_model)
        assert vae.model_size() == weights > 10**5 and vae.disable_offload is False
        assert vae.patcher.model is vae.first_stage_model
    assert "VAE load device" in caplog.text  # the log was heard
    assert "No VAE weights" not in caplog.text and "VAE keys" not in caplog.text
