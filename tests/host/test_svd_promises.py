"""What diffusers' guide to SVD promises and no other test shows: half precision, offloading, chunks, 25 frames."""

import pytest
import torch
from PIL import Image

from kinetograph.modules.conditioning.first_frame import fit_image
from kinetograph.tests import tiny_svd
from kinetograph.tests.host.workbench import SVD, SVD_OWN, SVDWorkbench, relative, run

pytestmark = pytest.mark.newest

FRAMES = 25


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


def test_half_precision_stays_near(bench):
    choice = {"model": SVD, "image_encoder": SVD_OWN, "vae": SVD_OWN, "weight_dtype": "fp16"}
    half = run(bench.ours["SVDLoader"], **choice)[0]
    kept = {weight.dtype for weight in half.model.diffusion_model.parameters()}
    assert kept == {torch.float16}
    exact, ours = (bench.sampler(model, bench.empty(), steps=1) for model in (bench.svd()[0], half))
    assert 0 < relative(ours, exact) < 0.02


def test_models_that_left_the_memory_come_back_the_same(bench):
    """As when a part is moved to the CPU while another works."""
    from comfy.model_management import current_loaded_models, unload_all_models

    latent, (model, _, vae) = bench.empty(), bench.svd()

    def clip():
        told = bench.condition(latent, bench.picture(seed=2))
        return bench.sampler(model, latent, positive=told[0], negative=told[1], steps=2)

    with torch.inference_mode():
        first = clip()
        frames = vae.decode(first)
        assert current_loaded_models
        unload_all_models()
        assert not current_loaded_models
        again = clip()
        unload_all_models()
        assert torch.equal(again, first) and torch.equal(vae.decode(again), frames)


@pytest.fixture(scope="module")
def decoder():
    return tiny_svd.pipeline()


@pytest.fixture(scope="module")
def latent(bench):
    noise = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(42))
    return {**bench.empty(FRAMES), "samples": noise}


@pytest.fixture(scope="module")
def whole(bench, latent):
    return bench.decode(latent, latent["samples"], chunk=FRAMES)


@pytest.mark.parametrize("chunk", [8, 2, 1])
def test_25_frames_in_chunks_are_diffusers(bench, decoder, latent, whole, chunk):
    """Hard seams, as there; single frames flicker, for none of them sees its neighbours."""
    ours = bench.decode(latent, latent["samples"], chunk=chunk)
    scaled = latent["samples"][None] * decoder.vae.config.scaling_factor
    with torch.inference_mode():
        theirs = decoder.decode_latents(scaled, FRAMES, decode_chunk_size=chunk)[0] / 2 + 0.5
    theirs = theirs.clamp(0, 1).movedim(0, -1)
    assert ours.shape == theirs.shape == (FRAMES, 64, 64, 3)
    assert (ours - theirs).abs().max() <= 1e-4
    assert (ours - whole).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(300, 200), (1500, 1100)], ids=str)
def test_a_picture_is_resized_as_pil_does(size):
    """`image.resize((1024, 576))` of the guide: bicubic, the whole picture. 8 bits round twice there: 1.6; bilinear is off by 15."""
    numbers = torch.randint(
        0, 256, (550, 750, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    picture = Image.fromarray(numbers.numpy()).resize(size, Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, size[1], size[0], 3)
    theirs = picture.resize((1024, 576))
    expected = torch.frombuffer(bytearray(theirs.tobytes()), dtype=torch.uint8).view(1, 576, 1024, 3)
    ours = fit_image(pixels / 255, 1024, 576, "stretch")
    assert (ours * 255 - expected).abs().max() <= 2
