"""Picture to pixels with SVD, through our nodes on the real host, against diffusers' pipeline."""

import io

import pytest
import torch
from PIL import Image

from kinetograph.tests import tiny_svd
from kinetograph.tests.host.graphs import picture_to_video, with_chunked_frames
from kinetograph.tests.host.workbench import SVD, SVDWorkbench, per_frame, relative

pytestmark = pytest.mark.newest

FOLDER = "SVD/tiny-svd"
TOLERANCE = 1e-4  # per pixel, of 0..1; 7e-6 is reached
SEED, STEPS, LOW, HIGH = 5, 4, 1.0, 3.0
SIZES = {"width": 128, "height": 64, "num_frames": 3}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def pipeline():
    return tiny_svd.pipeline()


def as_pil(image_hwc):
    return Image.fromarray((image_hwc * 255).round().to(torch.uint8).numpy())


def reference(pipeline, image, width, height, num_frames, steps=STEPS, **changes):
    """Frames (f, h, w, 3) of diffusers for the same noise, of the picture and of the latents."""
    shape = (1, num_frames, 4, height // 8, width // 8)
    theirs = pipeline(
        as_pil(image[0]),
        height=height,
        width=width,
        num_frames=num_frames,
        num_inference_steps=steps,
        min_guidance_scale=LOW,
        max_guidance_scale=HIGH,
        fps=7,
        motion_bucket_id=127,
        noise_aug_strength=0.02,
        decode_chunk_size=num_frames,
        generator=torch.Generator().manual_seed(3),
        latents=torch.randn(shape, generator=torch.Generator().manual_seed(SEED)),
        output_type="pt",
        **changes,
    ).frames[0]
    assert theirs.std() > 0.05, "a grey video proves nothing"
    return theirs.movedim(1, -1)


class Ours:
    """One run of our nodes; `change` may edit what the sampler is told, to see that it matters."""

    def __init__(self, bench, image, width, height, num_frames, parts=SVD):
        self.bench, self.parts = bench, parts
        self.latent = bench.empty(num_frames, width, height=height)
        self.told = bench.condition(self.latent, image, parts, fit="exact")

    def frames(self, change=None, guidance=None):
        (token, positive), (no_token, negative) = (entries[0] for entries in self.told)
        told = {"token": token, "no_token": no_token, "positive": positive, "negative": negative}
        told |= change(told) if change else {}
        samples = self.bench.sampler(
            self.bench.svd(self.parts)[0],
            self.latent,
            positive=[[told["token"], told["positive"]]],
            negative=[[told["no_token"], told["negative"]]],
            guidance=guidance or per_frame(LOW, HIGH),
            scheduler="edm",
            steps=STEPS,
            seed=SEED,
        )
        return self.bench.decode(self.latent, samples, self.parts)


def worst(ours, theirs):
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def test_a_single_file_at_its_native_size_is_diffusers(bench, pipeline):
    size = {"width": tiny_svd.WIDTH, "height": tiny_svd.HEIGHT, "num_frames": tiny_svd.FRAMES}
    image = bench.picture(width=128)
    ours = Ours(bench, image, **size).frames()
    assert worst(ours, reference(pipeline, image, **size)) <= TOLERANCE


@pytest.fixture(scope="module")
def small(bench, pipeline):
    """(picture, frames of diffusers) at a smaller, wider size."""
    image = bench.picture(width=SIZES["width"], height=SIZES["height"], seed=1)
    return image, reference(pipeline, image, **SIZES)


def test_a_diffusers_folder_is_diffusers(bench, small):
    ours = Ours(bench, small[0], **SIZES, parts=FOLDER).frames()
    assert worst(ours, small[1]) <= TOLERANCE


def scaled(entry, factor):
    return {**entry, "concat_latent_image": entry["concat_latent_image"] * factor}


WRONG = {
    "image latents scaled as those of the video": lambda told: {
        "positive": scaled(told["positive"], 0.18215)
    },
    "frame rate not reduced by one": lambda told: {
        side: {**told[side], "fps": 8} for side in ("positive", "negative")
    },
    "frame rate and motion swapped": lambda told: {
        side: {**told[side], "fps": 128, "motion_bucket_id": 6} for side in ("positive", "negative")
    },
    "picture left in the empty half": lambda told: {"negative": told["positive"]},
    "token left in the empty half": lambda told: {"no_token": told["token"]},
}


@pytest.fixture(scope="module")
def ours(bench, small):
    return Ours(bench, small[0], **SIZES)


class TestWhatTheComparisonWouldShow:
    """Mistakes that the pipelines above would not let through: each is a hundred times the tolerance and more."""

    @pytest.mark.parametrize("mistake", WRONG)
    def test_wrong_conditions(self, ours, small, mistake):
        assert worst(ours.frames(WRONG[mistake]), small[1]) > 1e-2

    def test_the_ramp_of_guidance_the_other_way(self, ours, small):
        assert worst(ours.frames(guidance=per_frame(HIGH, LOW)), small[1]) > 1e-2

    def test_the_other_encoder_of_the_single_file(self, ours, small):
        """That of `first_stage_model` has weights of its own, also in the published file."""
        noise = torch.randn((1, 3, 64, 128), generator=torch.Generator().manual_seed(3))
        pixels = small[0].movedim(-1, 1) * 2 - 1 + 0.02 * noise

        def encoded(seed):
            with torch.inference_mode():
                return tiny_svd.vae(seed).encode(pixels).latent_dist.mode()

        told = ours.told[0][0][1]
        assert relative(told["concat_latent_image"], encoded(1)) <= 1e-5
        other = {"positive": {**told, "concat_latent_image": encoded(100)}}
        assert worst(ours.frames(lambda _: other), small[1]) > 1e-2


def test_over_http_the_frames_are_diffusers(client, pipeline, small, tmp_path):
    """From the picture's file to the frames' files, without `long_clip`: so do prompts look that were saved before it."""
    image = small[0][:, :, :64]
    as_pil(image[0]).save(tmp_path / "start.png")
    graph = picture_to_video(client.upload(tmp_path / "start.png"), seed=SEED, steps=STEPS)
    assert "long_clip" not in graph["sampler"]["inputs"]
    result = client.run(with_chunked_frames(graph))
    assert result.status == "success", result.message
    files = [Image.open(io.BytesIO(client.view(file))) for file in result.files()]
    ours = torch.stack([torch.frombuffer(bytearray(file.tobytes()), dtype=torch.uint8) for file in files])
    theirs = reference(pipeline, image, width=64, height=64, num_frames=3)
    assert worst(ours.view(3, 64, 64, 3) / 255, theirs) <= 1 / 255 + TOLERANCE  # SaveImage rounds down


def test_over_http_with_the_options_of_long_clips(client, small, tmp_path):
    as_pil(small[0][0]).save(tmp_path / "start.png")
    name = client.upload(tmp_path / "start.png")
    options = {"long_clip": "on", "long_clip.sequential_cfg": True, "long_clip.equalise_frames": True}
    graph = picture_to_video(name, steps=1, **options, **{"long_clip.contrast_scale": 1.2})
    result = client.run(with_chunked_frames(graph))
    assert result.status == "success" and len(result.files()) == 3, result.message
    graph["sampler"]["inputs"]["long_clip.contrast_scale"] = 40.0
    refused = client.run(with_chunked_frames(graph))
    assert refused.status != "success" and "contrast_scale" in refused.message


def for_clips(told):
    """Inputs of the sampler for a conditioning."""
    return {"positive": told[0], "negative": told[1], "guidance": per_frame(LOW, HIGH), "scheduler": "edm"}


@pytest.fixture(scope="module")
def pair(bench):
    """(latent of two clips, their samples); every frame's noise has a number of its own."""
    latent = {**bench.empty(clips=2), "batch_index": list(range(6))}
    told = bench.condition(bench.empty())
    return latent, bench.sampler(bench.svd()[0], latent, **for_clips(told))


class TestSeveralClips:
    """Clips lie one behind the other on the batch axis and never see each other."""

    @pytest.mark.parametrize("clip", [0, 1])
    def test_each_is_what_it_is_alone(self, bench, pair, clip):
        rows = slice(3 * clip, 3 * clip + 3)
        latent = {**bench.empty(), "batch_index": list(range(6))[rows]}
        alone = bench.sampler(bench.svd()[0], latent, **for_clips(bench.condition(latent)))
        assert relative(pair[1][rows], alone) <= 1e-5
        assert relative(pair[1][:3], pair[1][3:]) > 0.1
        decoded = bench.decode(*pair)[rows]
        assert worst(decoded, bench.decode(latent, alone)) <= TOLERANCE

    def test_a_decoder_that_took_both_for_one_clip_would_be_noticed(self, bench, pair):
        latent, samples = pair
        one = bench.decode({**latent, "num_frames": 6}, samples)
        assert worst(bench.decode(latent, samples), one) > 1e-2

    def test_a_conditioning_for_other_clips_is_refused(self, bench):
        for frames, clips in ((6, 1), (2, 3)):
            told = for_clips(bench.condition(bench.empty(frames, clips=clips)))
            with pytest.raises(ValueError, match=f"clips of {frames} frames.* SVD Conditioning the latent"):
                bench.sampler(bench.svd()[0], bench.empty(clips=2), **told)

    def test_a_latent_that_lost_frames_is_refused(self, bench):
        latent = bench.empty()
        short = {**latent, "samples": latent["samples"][:2]}
        with pytest.raises(ValueError, match="holds 2 frames but says that a clip has 3"):
            bench.sampler(bench.svd()[0], short, **for_clips(bench.condition(latent)))


def test_one_picture_is_the_same_as_equal_pictures_of_all_frames(bench):
    latent, image = bench.empty(), bench.picture()
    model = bench.svd()[0]

    def sampled(images):
        positive, negative = bench.condition(latent, images, noise_aug_strength=0.0)
        return bench.sampler(model, latent, positive=positive, negative=negative)

    one = sampled(image)
    assert relative(sampled(image.repeat(3, 1, 1, 1)), one) <= 1e-5
    assert relative(sampled(bench.picture(3)), one) > 1e-2


def second_pass(unet, samples, noise, image, token, levels, scale):
    """Euler from a noised clip, written from the formulas (arXiv 2206.00364; v as SVD has it), one clip."""
    frames = len(samples)
    x = samples + noise * levels[0]
    numbers = torch.tensor([[6.0, 127.0, 0.02]])

    def denoised(x, sigma, image, token):
        seen = torch.cat([x / (sigma**2 + 1) ** 0.5, image.expand(frames, -1, -1, -1)], dim=1)
        v = unet(seen[None], sigma.log() / 4, token, numbers).sample[0]
        return x / (sigma**2 + 1) - v * sigma / (sigma**2 + 1) ** 0.5

    for sigma, following in zip(levels, levels[1:], strict=False):
        cond = denoised(x, sigma, image, token)
        uncond = denoised(x, sigma, image * 0, token * 0)
        x0 = uncond + scale.view(-1, 1, 1, 1) * (cond - uncond)
        x = x + (x - x0) / sigma * (following - sigma)
    return x


def test_a_second_pass_starts_where_exvideos_does(bench):
    """Half strength of an encoded clip: from the level in the middle of the ramp, not after half of the steps."""
    model, _, vae = bench.svd()
    clip = {"samples": vae.encode(bench.picture(3, seed=4)), "num_frames": 3}
    positive, negative = bench.condition(clip)
    told = {"positive": positive, "negative": negative, "guidance": per_frame(LOW, HIGH), "denoise": 0.5}
    ours = bench.sampler(model, clip, scheduler="edm", seed=SEED, **told)

    ramp = 700 ** (1 / 7) + torch.linspace(0.5, 1, 3, dtype=torch.float64) * (
        0.002 ** (1 / 7) - 700 ** (1 / 7)
    )
    levels = torch.cat([ramp**7, torch.zeros(1)]).float()
    assert levels[0].item() == pytest.approx(15.59, abs=0.005)
    noise = torch.randn(clip["samples"].shape, generator=torch.Generator().manual_seed(SEED))
    image, token = positive[0][1]["concat_latent_image"], positive[0][0]
    with torch.inference_mode():
        unet, scale = tiny_svd.unet(), torch.linspace(LOW, HIGH, 3)
        theirs = second_pass(unet, clip["samples"] * 0.18215, noise, image, token, levels, scale) / 0.18215
    assert relative(ours, theirs) <= 1e-5
    assert relative(ours, bench.sampler(model, clip, scheduler="karras", seed=SEED, **told)) > 1e-2
