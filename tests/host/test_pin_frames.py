"""Pinned frames: what the node puts into a latent, and what the host's samplers make of it."""

import pytest
import torch

from kinetograph.tests.host import svd_parts as parts
from kinetograph.tests.host.svd_parts import condition, latent, pictures, pin
from kinetograph.tests.host.workbench import Workbench, relative


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


@pytest.fixture(scope="module")
def image_encoder(bench):
    return parts.make_image_encoder()


@pytest.fixture(scope="module")
def image_vae():
    return parts.make_image_vae()


@pytest.fixture(scope="module")
def vision(image_encoder):
    return parts.make_vision(image_encoder)


@pytest.fixture(scope="module")
def vae(bench, image_vae):
    return parts.make_vae(image_vae)


@pytest.fixture(scope="module")
def host_svd(bench):
    return parts.make_host_svd()


def test_pinned_frames_are_the_encoded_pictures(bench, vae, image_vae):
    images = pictures(2)
    result = pin(bench, vae, images, "0 -1")
    with torch.inference_mode():
        mode = image_vae.encode(images.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    assert relative(result["samples"][[0, 4]], mode) <= 1e-5 and not result["samples"][1:4].any()
    assert result["noise_mask"][:, 0, 0, 0].tolist() == [0, 1, 1, 1, 0] and result["num_frames"] == 5


@pytest.mark.parametrize(
    "count, frames, message",
    [
        (1, "0, 1", "got 1 pictures for 2 numbers in '0, 1'"),
        (2, "0, 5", "The clip has 5 frames, 0 to 4 .* got frame 5"),
        (2, "-1 4", "frame 4 is named twice"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(bench, vae, count, frames, message):
    with pytest.raises(ValueError, match=message):
        pin(bench, vae, pictures(count), frames)


def test_frames_of_a_5d_latent_cannot_be_pinned(bench):
    """The VAE is the latent's own: what does not fit is the node."""
    words = (
        r"Pin Frames takes latents of shape \(frames, .*got \(1, 16, 3, 8, 8\).*Video Latent for family svd"
    )
    with pytest.raises(ValueError, match=words):
        pin(bench, bench.shared("5B")[2], pictures(), "0", latent=bench.empty())


def test_a_video_vae_cannot_pin_frames(bench):
    """The latent is right: what does not fit is the VAE."""
    with pytest.raises(
        ValueError, match=r"Pin Frames \(.*takes .*\(batch, 16, frames, .*got \(5, 4, 8, 16\)"
    ):
        pin(bench, bench.shared("5B")[2], pictures(), "0")


def test_a_vae_of_other_channels_is_named(bench, vae):
    with pytest.raises(ValueError, match=r"takes latents of shape \(frames, 4, .*got \(3, 16, 8, 16\)"):
        pin(bench, vae, pictures(), "0", latent={"samples": torch.zeros(3, 16, 8, 16)})


def test_text_that_is_no_list_of_frames_is_refused_when_posted(bench):
    node = bench.ours["PinFrames"]
    assert node.validate_inputs(frames="0, -1") is True and node.validate_inputs(frames=None) is True
    assert "got 'last'" in node.validate_inputs(frames="0, last")


def test_samplers_of_the_host_keep_pinned_frames_and_fill_in_the_rest(bench, vision, vae, host_svd):
    """At every step the network is shown the encodings with that step's noise, as ExVideo pins frames."""
    import comfy.sample

    positive, negative = condition(bench, vision, vae, pictures(), latent=latent(5))
    clip = pin(bench, vae, pictures(2, seed=1), "0 -1")
    settings = {"cfg": 2.0, "positive": positive, "negative": negative, "seed": 7}
    free = bench.ksampler(host_svd, latent(5), **settings)
    seen = []
    hook = host_svd.model.diffusion_model.register_forward_pre_hook(
        lambda module, given, named: seen.append((given[0], named["transformer_options"]["sigmas"][0])),
        with_kwargs=True,
    )
    try:
        pinned = bench.ksampler(host_svd, clip, **settings)
    finally:
        hook.remove()
    ends = [0, 4]
    noise = comfy.sample.prepare_noise(clip["samples"], 7)[ends]
    assert len(seen) == 3
    for x, sigma in seen:
        shown = x[ends, :4] * (sigma**2 + 1) ** 0.5
        assert relative(shown, clip["samples"][ends] * 0.18215 + noise * sigma) <= 1e-5
    assert relative(pinned[ends], clip["samples"][ends]) <= 1e-5
    assert torch.isfinite(pinned).all() and pinned[1:4].std() > 0.01
    assert relative(pinned[1:4], free[1:4]) > 1e-4  # the others saw the pinned ones
