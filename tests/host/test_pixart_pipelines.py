"""Words to pixels with PixArt and EasyAnimate v1, through our nodes on the real host, against diffusers' pipeline.

A random network is no denoiser: its latents end a thousand times too large, where a decoder sees nothing but its ends.
So the last layer of the one used here is fitted to noise.
"""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from kinetograph.benchmarks import peers
from kinetograph.tests import tiny, tiny_pixart
from kinetograph.tests.easyanimate_reference import put_motion
from kinetograph.tests.host.pixart_bench import MODULE, PORTRAIT, SIZED, PixArtBench
from kinetograph.tests.host.workbench import relative, run
from kinetograph.tests.tiny_pixart import FRAMES

TOLERANCE = 1e-4  # per pixel of 0..1; 3e-5 is reached
LATENTS = 1e-5  # of the largest latent; 3e-6 is reached
PROMPT, SEED, CFG = "A Red circle that moves to the left", 43, 2.0
WIDTH, HEIGHT = 96, 64
MAX_TOKENS = 120
SCALE = 0.18215
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
# the host's sampler: diffusers' class, the host's scheduler of the same timesteps, steps at which those are whole
# numbers and so the same, and other steps
SAMPLERS = {
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "sgm_uniform", 9, 30),
    "euler": ("EulerDiscreteScheduler", "normal", 10, 30),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", "normal", 10, 30),
}


FITTED = "Diffusion_Transformer/tiny-pixart-fitted"


@cache
@torch.no_grad()
def fitted():
    """The tiny transformer with a last layer that tells noise best, with motion modules and without: least squares."""
    made, moved = tiny_pixart.transformer(), tiny_pixart.transformer()
    put_motion(moved, tiny_pixart.modules(), FRAMES, lambda: (HEIGHT // 16, WIDTH // 16))
    generator = torch.Generator().manual_seed(0)
    features, noise = [], []
    for network in (made, moved):
        network.proj_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(0, 1)))
        for timestep in (999.0, 700.0, 300.0, 0.0):
            x = torch.randn(FRAMES, 4, HEIGHT // 8, WIDTH // 8, generator=generator)
            text = torch.randn(FRAMES, 6, tiny.TEXT_WIDTH, generator=generator)
            told = {"resolution": None, "aspect_ratio": None}
            network(x, text, torch.full((FRAMES,), timestep), told)
            noise.append(rearrange(x, "n c (h p) (w q) -> (n h w) (p q c)", p=2, q=2))
    known = torch.cat(features)
    solution = torch.linalg.lstsq(F.pad(known, (0, 1), value=1.0), torch.cat(noise)).solution
    fitted = tiny_pixart.transformer()
    fitted.proj_out.weight.view(4, 8, -1)[:, :4] = solution[:-1].T.view(4, 4, -1)
    fitted.proj_out.bias.view(4, 8)[:, :4] = solution[-1].view(4, 4)
    return fitted


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    tiny_pixart.write_pipeline(base / "models" / FITTED)
    fitted().save_pretrained(base / "models" / FITTED / "transformer")
    return PixArtBench()


def scheduler(sampler, steps=None):
    made = getattr(peers.load_diffusers(), SAMPLERS[sampler][0])(**BETAS)
    if steps:
        made.set_timesteps(steps)
    return made


def tokens_of(clip, text):
    """The ids that the host's tokenizer makes of a text in lower case, without padding."""
    (rows,) = clip.tokenize(text).values()
    return torch.tensor([[int(token) for token, *_ in rows[0]]])


def features(clip, text):
    """transformers' T5 on the same ids."""
    with torch.no_grad():
        return tiny.text_encoder(2)(input_ids=tokens_of(clip, text)).last_hidden_state


def padded(text_1ld):
    """(features, mask) as the pipeline has them; what is behind the mask is not zero."""
    room = MAX_TOKENS - text_1ld.shape[1]
    behind = torch.randn(1, room, text_1ld.shape[2], generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, MAX_TOKENS).index_fill_(1, torch.arange(MAX_TOKENS - room, MAX_TOKENS), 0)
    return torch.cat([text_1ld, behind], dim=1), mask


@cache
def taesd():
    """diffusers' TAESD with the weights of the tiny folder's VAE, whose layers lie one further back on the way out."""
    theirs = peers.load_diffusers().AutoencoderTiny()
    weights = {}
    for key, value in tiny_pixart.vae_weights(1).items():
        half, _, rest = key.removeprefix("taesd_").partition(".")
        place, _, leaf = rest.partition(".")
        if leaf:
            weights[f"{half}.layers.{int(place) - (half == 'decoder')}.{leaf}"] = value
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval()


TRANSFORMERS = {
    FITTED: lambda: copy.deepcopy(fitted()),
    SIZED: lambda: tiny_pixart.transformer(128),
    PORTRAIT: lambda: tiny_pixart.transformer(seed=9),
}


class Reference:
    """diffusers' pipeline around a tiny transformer, with motion modules in its blocks or without."""

    def __init__(self, clip, name=FITTED, moving=False):
        diffusers = peers.load_diffusers()
        transformer = TRANSFORMERS[name]()
        if moving:
            put_motion(transformer, tiny_pixart.modules(), FRAMES, lambda: (HEIGHT // 16, WIDTH // 16))
        parts = {"tokenizer": None, "text_encoder": None, "transformer": transformer, "vae": taesd()}
        self.pipeline = diffusers.PixArtAlphaPipeline(**parts, scheduler=scheduler("euler"))
        self.pipeline.set_progress_bar_config(disable=True)
        self.texts = [padded(features(clip, text)) for text in (PROMPT.lower(), "")]

    def sample(self, sampler, steps, same_start=True):
        """Latents (f, c, h, w) for the noise that the host draws for SEED, at the start and at every step."""
        self.pipeline.scheduler = scheduler(sampler)
        noise = torch.randn(FRAMES, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(SEED))
        if same_start and sampler != "dpmpp_2m":
            # Euler's begin with noise at the highest level; the host, as a noisy picture has it, with a variance of 1 more
            highest = self.pipeline.scheduler.init_noise_sigma
            noise = noise * (highest**2 + 1) ** 0.5 / highest
        (words, mask), (silence, silent_mask) = self.texts
        return self.pipeline(
            negative_prompt=None,
            prompt_embeds=words,
            prompt_attention_mask=mask,
            negative_prompt_embeds=silence,
            negative_prompt_attention_mask=silent_mask,
            num_images_per_prompt=FRAMES,
            latents=noise,
            # k-diffusion's draws of the host on a CPU
            generator=torch.Generator().manual_seed(SEED + 1),
            num_inference_steps=steps,
            guidance_scale=CFG,
            width=WIDTH,
            height=HEIGHT,
            use_resolution_binning=False,
            output_type="latent",
        ).images


@cache
def reference(clip, name=FITTED, moving=False):
    return Reference(clip, name, moving)


def ours(bench, model, sampler, steps, scheduler=None):
    """Latents (f, c, h, w) as the network sees them, by the host's KSampler."""
    latent = bench.empty(width=WIDTH, height=HEIGHT)
    choice = {"sampler_name": sampler, "scheduler": scheduler or SAMPLERS[sampler][1], "steps": steps}
    del latent["batch_index"]
    settings = bench.prompts(words=PROMPT) | choice | {"seed": SEED}
    return bench.ksampler(model, latent, CFG, **settings) * SCALE


@pytest.mark.parametrize("text", [PROMPT, "", "one"])
def test_text_is_what_t5_makes_of_the_same_tokens(bench, text):
    clip = bench.parts()[1]
    encoded = run(bench.host.CLIPTextEncode, clip=clip, text=text)[0][0][0]
    theirs = features(clip, text.lower())
    # an empty prompt is the end of a text alone
    assert theirs.shape[1] == (1 if not text else len(tokens_of(clip, text.lower())[0]))
    assert relative(encoded, theirs) <= 1e-5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("moving", [False, True], ids=["still", "moving"])
def test_frames_are_those_of_the_pipeline(bench, sampler, moving):
    """Latents, and pixels through the host's TAESD and diffusers' own."""
    model, clip, vae = bench.parts(FITTED)
    steps = SAMPLERS[sampler][2]
    latents = reference(clip, moving=moving).sample(sampler, steps)
    model = bench.move(model, MODULE) if moving else model
    own = ours(bench, model, sampler, steps)
    assert relative(own, latents) <= LATENTS
    frames = run(bench.host.VAEDecode, vae=vae, samples={"samples": own / SCALE})[0]
    with torch.no_grad():
        theirs = (taesd().decode(latents).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert theirs.std() > 0.05, "a grey video proves nothing"
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and (frames - theirs).abs().max() <= TOLERANCE
    if not moving:
        assert relative(ours(bench, model, sampler, steps, "karras"), latents) > 1e-2


def test_where_diffusers_begins_makes_no_difference_to_speak_of(bench):
    model, clip, _ = bench.parts(FITTED)
    theirs = reference(clip).sample("euler", 10, same_start=False)
    # 4e-5 is reached
    assert relative(ours(bench, model, "euler", 10), theirs) <= 1e-4


@pytest.mark.parametrize("moving", [False, True], ids=["still", "moving"])
def test_1024_is_told_the_size_of_the_picture(bench, moving):
    model, clip, _ = bench.parts(SIZED)
    theirs = reference(clip, SIZED, moving).sample("dpmpp_2m", 3)
    model = bench.move(model, MODULE) if moving else model
    assert relative(ours(bench, model, "dpmpp_2m", 3), theirs) <= LATENTS


def test_a_personalised_checkpoint_takes_the_place_of_the_base_and_keeps_the_motion(bench):
    model, clip, _ = bench.pixart(FITTED, personalized=PORTRAIT)
    for moving in (False, True):
        theirs = reference(clip, PORTRAIT, moving).sample("dpmpp_2m", 3)
        moved = bench.move(model) if moving else model
        assert relative(ours(bench, moved, "dpmpp_2m", 3), theirs) <= LATENTS
        assert relative(reference(clip, moving=moving).sample("dpmpp_2m", 3), theirs) > 1e-2


def levels(bench, name, steps):
    """The noise levels of a scheduler of the host, falling."""
    from comfy.samplers import calculate_sigmas

    return calculate_sigmas(bench.parts()[0].get_model_object("model_sampling"), name, steps)


def timesteps(bench, name, steps):
    """Where the levels of a scheduler of the host lie among the timesteps, between whole ones in log sigma."""
    table = bench.parts()[0].get_model_object("model_sampling").sigmas.double().log()
    found = levels(bench, name, steps)[:-1].double().log()
    above = torch.searchsorted(table, found).clamp(1, 999)
    return above - 1 + (found - table[above - 1]) / (table[above] - table[above - 1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_schedulers_that_visit_the_timesteps_of_diffusers(bench, sampler):
    """The very levels where the timesteps are whole; else diffusers rounds them, or the host does in the network."""
    _, name, exact, usual = SAMPLERS[sampler]
    theirs = scheduler(sampler, exact)
    assert (theirs.timesteps == theirs.timesteps.round()).all()
    assert relative(levels(bench, name, exact), theirs.sigmas) <= 2e-6
    theirs = scheduler(sampler, usual)
    assert (timesteps(bench, name, usual) - theirs.timesteps).abs().max() <= 0.51
    others = {"normal", "sgm_uniform", "simple", "ddim_uniform", "karras"} - {name}
    for other in others:
        there = timesteps(bench, other, usual)
        assert len(there) != usual or (there - theirs.timesteps).abs().max() > 0.51, other


@pytest.mark.parametrize("steps", [5, 30])
def test_dpmpp_at_the_levels_of_diffusers_is_diffusers_at_any_steps(bench, steps):
    from comfy.samplers import sampler_object
    from comfy_extras.nodes_custom_sampler import SamplerCustom

    model, clip, _ = bench.parts(FITTED)
    theirs = reference(clip).sample("dpmpp_2m", steps)
    latent = bench.empty(width=WIDTH, height=HEIGHT)
    del latent["batch_index"]
    samples = run(
        SamplerCustom,
        model=model,
        add_noise=True,
        noise_seed=SEED,
        cfg=CFG,
        sampler=sampler_object("dpmpp_2m"),
        sigmas=scheduler("dpmpp_2m", steps).sigmas,
        latent_image=latent,
        **bench.prompts(words=PROMPT),
    )[0]["samples"]
    assert relative(samples * SCALE, theirs) <= LATENTS
