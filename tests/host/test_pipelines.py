"""Prompt or picture to pixels, through our nodes on the real host, against diffusers' pipelines.

diffusers rotates with another table when its crop has an offset (spec: gotchas); the tiny sizes have none.
"""

import asyncio

import pytest
import torch

from kinetograph.tests import tiny

pytestmark = pytest.mark.newest

PROMPT = "a red circle moving left"
SEED, STEPS, CFG = 7, 10, 6.0
TOLERANCE = 1e-4  # per pixel, of 0..1


@pytest.fixture(scope="module")
def nodes(comfy_here):
    """Our node classes by name, registered as the host registers them."""
    import kinetograph

    async def classes():
        extension = await kinetograph.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return {cls.__name__: cls for cls in asyncio.run(classes())}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


class OurRun:
    """One variant, loaded through our loader, with both prompts encoded by the host."""

    def __init__(self, nodes, variant):
        import nodes as host

        self.nodes, self.host = nodes, host
        own = "from the model's folder"
        loader = nodes["CogVideoXLoader"]
        name = f"CogVideo/tiny-{variant}"
        assert loader.validate_inputs(name, own, own) is True
        self.model, clip, self.vae = loader.execute(name, own, own, "auto").args
        (self.positive,) = host.CLIPTextEncode().encode(clip, PROMPT)
        (self.negative,) = host.CLIPTextEncode().encode(clip, "")

    def sample(self, latent, positive=None, negative=None, **changes):
        settings = {
            "seed": SEED,
            "steps": STEPS,
            "guidance": {"guidance": "constant", "cfg": CFG},
            "sampler_name": "cogvideox_ddim",
            "scheduler": "simple",
            "denoise": 1.0,
            "preview": False,
            **changes,
        }
        positive, negative = positive or self.positive, negative or self.negative
        return self.nodes["VideoSampler"].execute(self.model, positive, negative, latent, **settings).args[0]

    def frames(self, latent):
        return self.nodes["VAEDecodeChunked"].execute(self.vae, latent, 0, 0).args[0]

    def empty(self, frames=tiny.FRAMES):
        latent = self.nodes["VideoLatent"]
        return latent.execute("cogvideox", tiny.WIDTH, tiny.HEIGHT, frames, 1).args[0]


def reference(kind, variant, **changes):
    """A diffusers pipeline over the same tiny weights."""
    transformer = tiny.transformer(variant)
    return kind(None, None, tiny.vae(variant), transformer, tiny.scheduler(variant), **changes)


def reference_text(prompt):
    """Features by transformers' T5 on the host's tokenizer files: padded and cut, without a mask."""
    from comfy.text_encoders import sd3_clip
    from transformers import T5TokenizerFast

    folder = __import__("pathlib").Path(sd3_clip.__file__).parent / "t5_tokenizer"
    tokens = T5TokenizerFast.from_pretrained(str(folder))(
        prompt, padding="max_length", max_length=tiny.TEXT_TOKENS, truncation=True, return_tensors="pt"
    )
    return tiny.text_encoder()(tokens.input_ids)[0]


def noise(frames, seed=SEED):
    """The noise that the host draws for a seed, in diffusers' order of axes."""
    shape = (1, 16, (frames - 1) // 4 + 1, tiny.HEIGHT // 8, tiny.WIDTH // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).transpose(1, 2)


def settings(**changes):
    return {
        "prompt_embeds": reference_text(PROMPT),
        "negative_prompt_embeds": reference_text(""),
        "guidance_scale": CFG,
        "num_inference_steps": STEPS,
        "output_type": "pt",
        **changes,
    }


def worst(ours_fhwc, theirs_fchw):
    theirs = theirs_fchw.movedim(1, -1)
    assert ours_fhwc.shape == theirs.shape
    assert theirs.std() > 0.05, "a black video proves nothing"
    return (ours_fhwc - theirs).abs().max().item()


@pytest.mark.parametrize("variant", ["2B", "5B"])
def test_text_to_video_is_diffusers(nodes, variant):
    from diffusers import CogVideoXPipeline

    run = OurRun(nodes, variant)
    ours = run.frames(run.sample(run.empty()))
    pipe = reference(CogVideoXPipeline, variant)
    size = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_frames": tiny.FRAMES}
    theirs = pipe(**settings(latents=noise(tiny.FRAMES), **size)).frames[0]
    assert worst(ours, theirs) <= TOLERANCE


def padded(frames):
    """Noise for an odd clip of 1.5 with the latent that is sampled behind it."""
    more = torch.randn((1, 16, 1, 8, 8), generator=torch.Generator().manual_seed(SEED)).transpose(1, 2)
    return torch.cat([noise(frames), more], dim=1)


def decoded_like_the_original(pipe, latents_btchw):
    """CogVideoX's own code decodes the first 2k + 1 of 2k + 2 latents; diffusers would drop the first."""
    z = latents_btchw[:, :-1].transpose(1, 2) / pipe.vae.config.scaling_factor
    return (pipe.vae.decode(z).sample / 2 + 0.5).clamp(0, 1)[0].transpose(0, 1)


def test_odd_clips_of_1_5_sample_one_latent_more_and_drop_the_last(nodes):
    from diffusers import CogVideoXPipeline

    run = OurRun(nodes, "1.5-5B")
    ours = run.frames(run.sample(run.empty()))
    pipe = reference(CogVideoXPipeline, "1.5-5B")
    size = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_frames": tiny.FRAMES + 4}
    wanted = settings(latents=padded(tiny.FRAMES), **size, output_type="latent")
    theirs = decoded_like_the_original(pipe, pipe(**wanted).frames)
    assert worst(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("variant, gain", [("5B-I2V", 1.0), ("1.5-5B-I2V", 1 / 0.7)])
def test_image_to_video_is_diffusers(nodes, variant, gain):
    """1.5 gets the image at scale 1 by default; the gain gives diffusers' reading (zai-org/CogVideo 761)."""
    from diffusers import CogVideoXImageToVideoPipeline

    run = OurRun(nodes, variant)
    image = torch.rand((1, tiny.HEIGHT, tiny.WIDTH, 3), generator=torch.Generator().manual_seed(1))
    latent = run.empty()
    posterior = {"posterior": "sample", "seed": 5}
    conditioning = nodes["ImageToVideoConditioning"]
    first = conditioning.execute(
        run.positive, run.negative, run.vae, image, latent, "exact", posterior, gain
    ).args
    ours = run.frames(run.sample(latent, *first))

    newer = variant.startswith("1.5")
    pipe = reference(CogVideoXImageToVideoPipeline, variant)
    pipe.vae.register_to_config(invert_scale_latents=newer)
    theirs = pipe(
        image=image.movedim(-1, 1),
        height=tiny.HEIGHT,
        width=tiny.WIDTH,
        num_frames=tiny.FRAMES + 4 * newer,
        generator=torch.Generator().manual_seed(5),
        **settings(latents=(padded if newer else noise)(tiny.FRAMES), output_type="latent"),
    ).frames
    if not newer:
        theirs = torch.cat([theirs, theirs[:, -1:]], dim=1)  # nothing to drop
    assert worst(ours, decoded_like_the_original(pipe, theirs)) <= TOLERANCE


def test_video_to_video_is_diffusers(nodes):
    from diffusers import CogVideoXVideoToVideoPipeline

    strength = 0.8
    run = OurRun(nodes, "5B")
    clip = torch.rand((tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3), generator=torch.Generator().manual_seed(2))
    latent = nodes["VAEEncodeChunked"].execute(run.vae, clip, {"posterior": "sample", "seed": 5}).args[0]
    steps = int(STEPS * strength)
    ours = run.frames(run.sample(latent, steps=steps, denoise=strength))

    pipe = reference(CogVideoXVideoToVideoPipeline, "5B")
    pixels = (clip * 2 - 1).movedim(-1, 0)[None]
    encoded = (
        pipe.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(5))
        * pipe.vae.config.scaling_factor
    )
    pipe.scheduler.set_timesteps(STEPS)
    begin = pipe.scheduler.timesteps[STEPS - steps].view(1)
    noisy = pipe.scheduler.add_noise(encoded.transpose(1, 2), noise(tiny.FRAMES), begin)
    pipe.prepare_latents = lambda *_: noisy  # the pipeline takes a clip or latents, never both
    theirs = pipe(
        video=list(clip.movedim(-1, 1)), strength=strength, height=tiny.HEIGHT, width=tiny.WIDTH, **settings()
    ).frames[0]
    assert worst(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("clock", ["step", "timestep"])
def test_dynamic_guidance_is_diffusers_or_the_original(nodes, clock):
    """diffusers reads u = (N - t) / N with t up to 999; the original code, and our default, u = step / N."""
    from diffusers import CogVideoXPipeline

    run = OurRun(nodes, "5B")
    guidance = {"guidance": "dynamic cosine", "cfg": CFG, "clock": clock}
    ours = run.frames(run.sample(run.empty(), guidance=guidance))
    pipe = reference(CogVideoXPipeline, "5B")
    size = {"height": tiny.HEIGHT, "width": tiny.WIDTH, "num_frames": tiny.FRAMES}
    theirs = pipe(**settings(latents=noise(tiny.FRAMES), **size), use_dynamic_cfg=True).frames[0]
    far = worst(ours, theirs)
    assert far <= TOLERANCE if clock == "timestep" else far > 10 * TOLERANCE, far


def test_the_hosts_own_samplers_differ_only_by_their_finite_sigma(nodes):
    """The host's Euler needs a finite last sigma: 4096 costs about 2e-4 of the latents, ours nothing."""
    run = OurRun(nodes, "5B")
    ours = run.sample(run.empty())["samples"]
    hosts = run.sample(run.empty(), sampler_name="ddim")["samples"]
    assert 1e-6 < ((ours - hosts).norm() / ours.norm()).item() < 1e-3
