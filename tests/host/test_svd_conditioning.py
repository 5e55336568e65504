"""What SVD is conditioned on, against diffusers' pipeline and the host's own node."""

import pytest
import torch

from kinetograph.tests.host import svd_parts as parts
from kinetograph.tests.host.svd_parts import FRAMES, HEIGHT, WIDTH, Sizes, condition, latent, pictures
from kinetograph.tests.host.workbench import Workbench, relative, run


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


@pytest.fixture(scope="module")
def pipeline(image_encoder, image_vae):
    from diffusers import StableVideoDiffusionPipeline
    from transformers import CLIPImageProcessor

    class Encoders(StableVideoDiffusionPipeline):
        """The pipeline's way to its conditioning, without a UNet."""

        def __init__(self):
            self.vae, self.image_encoder = image_vae, image_encoder
            self.feature_extractor = CLIPImageProcessor()
            from diffusers.video_processor import VideoProcessor

            self.video_processor = VideoProcessor(do_resize=True, vae_scale_factor=8)

    return Encoders()


def as_pil(image_hwc):
    from PIL import Image

    return Image.fromarray((image_hwc * 255).round().to(torch.uint8).numpy())


def test_tokens_are_those_of_transformers(bench, vision, image_encoder):
    from kinetograph.nodes.host.clip_vision import AT_ONCE, embed_pixels

    pixels = torch.randn(AT_ONCE + 1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = embed_pixels(vision, pixels)
        theirs = image_encoder(pixels).image_embeds
    assert ours.shape == (AT_ONCE + 1, 1, 16)
    assert relative(ours[:, 0], theirs) <= 1e-5
    assert relative(theirs[:1], theirs[1:2]) > 0.05  # it does look at the picture


def test_the_quick_gelu_and_the_hosts_own_crop_would_be_noticed(bench, vision, vae, image_encoder):
    """What the comparisons with the references would show if activation or preprocessing were others."""
    from transformers.activations import QuickGELUActivation

    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    layers = image_encoder.vision_model.encoder.layers
    with torch.inference_mode():
        right = image_encoder(pixels).image_embeds
        for layer in layers:
            layer.mlp.activation_fn, exact = QuickGELUActivation(), layer.mlp.activation_fn
        quick = image_encoder(pixels).image_embeds
        for layer in layers:
            layer.mlp.activation_fn = exact
    assert relative(quick, right) > 1e-3
    image = pictures()
    ours = condition(bench, vision, vae, image)[0][0][0]
    cropped = run(bench.host.CLIPVisionEncode, clip_vision=vision, image=image, crop="center")[0].image_embeds
    assert relative(ours[0], cropped) > 1e-2


def test_conditioning_is_what_the_pipeline_computes(bench, vision, vae, pipeline):
    image, strength, seed = pictures(), 0.3, 11
    positive, negative = condition(
        bench, vision, vae, image, noise_aug_strength=strength, seed=seed, fps=9, motion_bucket_id=42
    )
    (token, numbers), (no_token, no_numbers) = positive[0], negative[0]
    with torch.inference_mode():
        pil = as_pil(image[0])
        empty, embedding = pipeline._encode_image(pil, "cpu", 1, True)
        noisy = pipeline.video_processor.preprocess(pil, height=HEIGHT, width=WIDTH)
        noisy = noisy + strength * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(seed))
        none, latents = pipeline._encode_vae_image(noisy, "cpu", 1, True)
    assert relative(token, embedding[None]) <= 1e-5 and torch.equal(no_token, empty[None])
    assert relative(numbers["concat_latent_image"], latents[None]) <= 1e-5
    assert torch.equal(no_numbers["concat_latent_image"], none[None])
    for given in (numbers, no_numbers):
        micro = [given["fps"] - 1, given["motion_bucket_id"], given["augmentation_level"]]
        assert micro == [8, 42, strength] and given["num_frames"] == FRAMES


def test_every_picture_moves_the_bar_and_lets_cancel_through(bench, vision, vae):
    """One picture per frame, each prepared for two encoders, then encoded by the VAE."""
    import comfy.model_management as management
    import comfy.utils

    moves, cancels = [], False

    def hear(value, total, preview, **_):
        moves.append((value, total))
        if cancels:
            management.interrupt_current_processing()

    image = torch.nn.functional.interpolate(pictures(FRAMES).movedim(-1, 1), scale_factor=1.5).movedim(1, -1)
    comfy.utils.set_progress_bar_global_hook(hear)
    try:
        condition(bench, vision, vae, image, fit="stretch")
        # the host passes on the first and the last move, and of a slow run some between
        assert moves[0] == (1, 2 * FRAMES) and (2 * FRAMES, 2 * FRAMES) in moves
        moves.clear()
        cancels = True
        with pytest.raises(management.InterruptProcessingException):
            condition(bench, vision, vae, image, fit="stretch")
        assert moves == [(1, 2 * FRAMES)]
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)


def test_the_picture_of_the_vae_is_noised_at_the_strength_asked_for(bench, vision, vae, image_vae):
    """The host's node adds its noise in 0..1, where the same number is twice as much."""
    grey = torch.full((1, HEIGHT, WIDTH, 3), 0.5)
    seen = []
    encoder = vae.first_stage_model.encoder
    hook = encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    try:
        condition(bench, vision, vae, grey, noise_aug_strength=2.0)
        from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

        size = {"width": WIDTH, "height": HEIGHT, "video_frames": FRAMES}
        numbers = {"motion_bucket_id": 127, "fps": 7, "augmentation_level": 2.0}
        run(SVD_img2vid_Conditioning, clip_vision=vision, init_image=grey, vae=vae, **size, **numbers)
    finally:
        hook.remove()
    ours, hosts = seen
    assert ours.std().item() == pytest.approx(2.0, rel=0.02)  # nothing was clamped on the way
    assert hosts.std().item() == pytest.approx(4.0, rel=0.02)


def test_clip_sees_the_whole_clean_picture_whatever_the_fit(bench, vision, vae):
    image = pictures(height=96, width=300)
    crop, stretch = (condition(bench, vision, vae, image, fit=fit)[0][0] for fit in ("crop", "stretch"))
    assert torch.equal(crop[0], stretch[0])
    noisy = condition(bench, vision, vae, image, noise_aug_strength=5.0)[0][0]
    assert torch.equal(noisy[0], crop[0])
    ours, theirs = crop[1]["concat_latent_image"], stretch[1]["concat_latent_image"]
    assert ours.shape == theirs.shape == (1, 4, HEIGHT // 8, WIDTH // 8)
    assert relative(ours, theirs) > 0.05
    with pytest.raises(ValueError, match='The image is 300x96, the clip 128x64.*"crop"'):
        condition(bench, vision, vae, image, fit="exact")


def test_seed_and_strength_make_the_noise(bench, vision, vae):
    def latents(**changes):
        return condition(bench, vision, vae, pictures(), **changes)[0][0][1]["concat_latent_image"]

    assert torch.equal(latents(seed=3), latents(seed=3))
    assert not torch.equal(latents(seed=3), latents(seed=4))
    assert torch.equal(latents(seed=3, noise_aug_strength=0.0), latents(seed=4, noise_aug_strength=0.0))


def test_one_picture_per_frame(bench, vision, vae):
    images = pictures(FRAMES)
    positive, negative = condition(bench, vision, vae, images, latent=latent(clips=2))
    token, numbers = positive[0]
    assert token.shape == (FRAMES, 1, 16) and numbers["num_frames"] == FRAMES
    assert numbers["concat_latent_image"].shape == (FRAMES, 4, HEIGHT // 8, WIDTH // 8)
    first = condition(bench, vision, vae, images[:1])[0][0]
    assert relative(token[:1], first[0]) <= 1e-6
    assert relative(numbers["concat_latent_image"][:1], first[1]["concat_latent_image"]) <= 1e-6
    assert negative[0][0].shape == token.shape and not negative[0][0].any()


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_pictures_is_refused(bench, vision, vae, count):
    with pytest.raises(ValueError, match=f"got {count} pictures for 3 frames"):
        condition(bench, vision, vae, pictures(count))


def test_a_latent_without_a_frame_count_is_one_clip(bench, vision, vae):
    given = {"samples": latent(clips=2)["samples"]}
    assert condition(bench, vision, vae, pictures(), latent=given)[0][0][1]["num_frames"] == 2 * FRAMES


@pytest.mark.parametrize(
    "samples, num_frames, message",
    [
        (
            torch.zeros(1, 16, 3, 8, 16),
            9,
            r"SVD takes latents of shape \(frames, 4, .*got \(1, 16, 3, 8, 16\)",
        ),
        (torch.zeros(3, 16, 8, 16), 3, r"SVD takes latents of shape \(frames, 4, .*got \(3, 16, 8, 16\)"),
        (torch.zeros(3, 4, 9, 16), 3, "multiples of 64 pixels: got height 72, use 64 or 128"),
        (torch.zeros(5, 4, 8, 16), 3, "holds 5 frames but says that a clip has 3"),
    ],
)
def test_wrong_latents_are_refused(bench, vision, vae, samples, num_frames, message):
    with pytest.raises(ValueError, match=message):
        condition(bench, vision, vae, pictures(), latent={"samples": samples, "num_frames": num_frames})


def test_a_video_vae_is_refused(bench, vision):
    with pytest.raises(ValueError, match=r"SVD Conditioning \(.*\(batch, 16, frames, .*got \(3, 4, 8, 16\)"):
        condition(bench, vision, bench.shared("5B")[2], pictures())


def test_encoders_without_a_projection_are_refused(bench, vae):
    from kinetograph.nodes.host.clip_vision import host_config

    class Stranger:
        model_type, config = "dinov2", {}

    class Unprojected:
        model_type = "clip_vision_model"
        config = {key: value for key, value in host_config(Sizes()).items() if key != "projection_dim"}

    for encoder in (Stranger(), Unprojected()):
        with pytest.raises(ValueError, match=f"with a projection: got {encoder.model_type}"):
            condition(bench, encoder, vae, pictures())


def test_missing_and_unknown_weights_of_an_image_encoder_are_named(bench, image_encoder):
    from kinetograph.nodes.host.clip_vision import VisionRecipe, load_clip_vision

    def load(weights):
        return load_clip_vision(VisionRecipe(Sizes(), lambda: weights, "that one"))

    weights = parts.hf_weights(image_encoder)
    lost = "vision_model.encoder.layers.1.mlp.fc2.bias"
    with pytest.raises(ValueError, match=f"that one lacks weights, 1 of them, the first: {lost}"):
        load({key: value for key, value in weights.items() if key != lost})
    with pytest.raises(ValueError, match="that one has unknown weights, 1 of them, the first: stranger"):
        load({**weights, "stranger": torch.zeros(1)})


def test_the_hosts_own_nodes_take_our_image_encoder(bench, vision, vae):
    output = run(bench.host.CLIPVisionEncode, clip_vision=vision, image=pictures(), crop="center")[0]
    assert output.image_embeds.shape == (1, 16)


@pytest.mark.parametrize("value, said", [(float("nan"), "got NaN"), (11.0, "0 to 10"), ("0.1", "a number")])
def test_a_strength_that_is_no_number_is_refused_when_it_is_linked(bench, vision, vae, value, said):
    with pytest.raises(ValueError, match=f"noise_aug_strength must be .*{said}"):
        condition(bench, vision, vae, pictures(), noise_aug_strength=value)


def test_the_hosts_own_svd_is_told_what_it_was_trained_on(bench, vision, vae, host_svd):
    """Raw fps in, fps - 1 to the model; image latents unscaled beside the noisy ones, zeros without picture."""
    from diffusers.models.embeddings import get_timestep_embedding

    images = pictures(FRAMES)
    positive, negative = condition(bench, vision, vae, images, fps=7, motion_bucket_id=42)
    seen = []
    network = host_svd.model.diffusion_model
    hook = network.register_forward_pre_hook(
        lambda module, given, named: seen.append((given, named)), with_kwargs=True
    )
    try:
        bench.ksampler(host_svd, latent(), cfg=2.5, positive=positive, negative=negative, steps=1)
    finally:
        hook.remove()
    (x, _), named = seen[0]
    token, numbers = positive[0]
    rows = x.shape[0] // FRAMES
    assert rows == 2  # both halves of guidance at once, the empty one last or first
    shown = next(row for row in range(rows) if named["context"][row * FRAMES].any())
    at = slice(shown * FRAMES, (shown + 1) * FRAMES)
    assert torch.equal(named["context"][at], token) and torch.equal(x[at, 4:], numbers["concat_latent_image"])
    blank = slice((1 - shown) * FRAMES, (2 - shown) * FRAMES)
    assert not named["context"][blank].any() and not x[blank, 4:].any()
    wanted = get_timestep_embedding(torch.tensor([6, 42, 0.02]), 256, True, 0).flatten()
    for row in named["y"]:
        assert (row - wanted).abs().max() <= 1e-5
