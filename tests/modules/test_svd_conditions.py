"""What the SVD UNet is told, against diffusers' own pipeline and by hand."""

from types import SimpleNamespace

import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.families.family import Request
from kinetograph.modules.families.svd.conditions import conditions
from kinetograph.modules.families.svd.config import SVDConfig

CONFIG = SVDConfig(context_dim=16)
FRAMES, SHAPE = 3, (3, 4, 8, 8)
NUMBERS = {"fps": 9.0, "motion_bucket_id": 42.0, "noise_aug_strength": 0.3}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ask(shape=SHAPE, context=None, image=None, num_frames=FRAMES, **numbers):
    context = draw(1, 1, 16) if context is None else context
    image = draw(1, *shape[1:]) if image is None else image
    return conditions(CONFIG, Request(shape, context, image, num_frames, {**NUMBERS, **numbers}))


def pipelines_numbers(config, fps, motion, noise):
    """diffusers' way: three ids in a row, each a sinusoid of its own."""
    peers.hide_broken_extensions()
    from diffusers import StableVideoDiffusionPipeline
    from diffusers.models.embeddings import Timesteps

    width = config.adm_dim // 3
    embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=config.adm_dim))
    unet = SimpleNamespace(config=SimpleNamespace(addition_time_embed_dim=width), add_embedding=embedding)
    ids = StableVideoDiffusionPipeline._get_add_time_ids(
        SimpleNamespace(unet=unet), fps, motion, noise, torch.float32, 1, 1, False
    )
    return Timesteps(width, True, 0)(ids.flatten()).reshape(1, -1)


@pytest.mark.parametrize("fps, motion, noise", [(7, 127, 0.02), (30, 255, 0.0), (1, 0, 1.5)])
@pytest.mark.parametrize("config", [CONFIG, SVDConfig(context_dim=16, adm_dim=48)])
def test_numbers_are_those_of_diffusers(config, fps, motion, noise):
    """The pipeline is given fps and hands on fps - 1; so are we."""
    given = {"fps": fps, "motion_bucket_id": motion, "noise_aug_strength": noise}
    request = Request(SHAPE, draw(1, 1, 16), draw(1, 4, 8, 8), FRAMES, given)
    ours = conditions(config, request)["y"]
    theirs = pipelines_numbers(config, fps - 1, motion, noise)
    assert ours.shape == (1, config.adm_dim)
    assert (ours - theirs).abs().max() <= 1e-6
    for wrong in ((fps, motion, noise), (motion, fps - 1, noise), (noise, motion, fps - 1)):
        if wrong != (fps - 1, motion, noise):
            assert (ours - pipelines_numbers(config, *wrong)).abs().max() > 1e-2


def test_numbers_are_cosines_then_sines_of_frame_rate_motion_and_noise():
    y = ask()["y"][0].view(3, 2, 128)
    frequencies = 10000.0 ** -(torch.arange(128) / 128)
    for part, number in zip(y, (8.0, 42.0, 0.3), strict=True):
        assert (part[0] - (number * frequencies).cos()).abs().max() <= 2e-5
        assert (part[1] - (number * frequencies).sin()).abs().max() <= 2e-5


def test_numbers_that_nobody_gave_are_the_usual_ones():
    silent = conditions(CONFIG, Request(SHAPE, draw(1, 1, 16), draw(1, 4, 8, 8)))
    usual = ask(fps=7, motion_bucket_id=127, noise_aug_strength=0.0)
    assert torch.equal(silent["y"], usual["y"]) and silent["num_video_frames"] == SHAPE[0]


def test_one_picture_is_shown_in_every_frame_unscaled():
    image, context = draw(1, 4, 8, 8), draw(1, 1, 16, seed=1)
    named = ask((6, 4, 8, 8), context, image)
    assert torch.equal(named["concat"], image.expand(6, -1, -1, -1))
    assert torch.equal(named["context"], context) and named["num_video_frames"] == FRAMES


def test_pictures_of_the_frames_return_with_every_clip():
    image, context = draw(3, 4, 8, 8), draw(3, 1, 16, seed=1)
    named = ask((6, 4, 8, 8), context, image)
    assert torch.equal(named["concat"], torch.cat([image, image]))
    assert torch.equal(named["context"], torch.cat([context, context]))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"context": draw(1, 77, 20)},
            "CLIP vision features of 16 numbers: got 20 numbers a token.*SVD Cond",
        ),
        (
            {"context": draw(2, 1, 16)},
            "CLIP features of 2 frames, a clip has 3: give one picture, or one for",
        ),
        (
            {"image": draw(2, 4, 8, 8)},
            "image latents of 2 frames, a clip has 3: give one picture, or one for",
        ),
        ({"image": draw(1, 4, 8, 16)}, r"latents of \(4, 8, 16\).* latent to sample is \(4, 8, 8\)"),
        ({"shape": (4, 4, 8, 8)}, "latent holds 4 frames, the conditioning is for clips of 3: give SVD Cond"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ask(**changes)


@pytest.mark.parametrize(
    "context, image, message",
    [
        (None, draw(1, 4, 8, 8), "features of 16 numbers: got none. Connect SVD Conditioning"),
        (draw(1, 1, 16), None, "SVD starts from a picture: connect SVD Conditioning"),
    ],
)
def test_what_is_lacking_is_named(context, image, message):
    with pytest.raises(ValueError, match=message):
        conditions(CONFIG, Request(SHAPE, context, image, FRAMES, NUMBERS))
