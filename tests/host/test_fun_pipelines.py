"""CogVideoX-Fun on the real host against its pipelines, which no package holds: composed of diffusers' parts by their rules.

aigc-apps/VideoX-Fun, pipeline_cogvideox_fun_inpaint: the transformer of 33 channels, the autoencoder, plain DDIM from the
checkpoint's own scheduler file. Control has a pipeline of diffusers.
"""

import pytest
import torch
import torch.nn.functional as F

from kinetograph.tests import tiny
from kinetograph.tests.host.test_pipelines import (  # noqa: F401
    CFG,
    OurRun,
    no_gradients,
    nodes,
    noise,
    reference,
    reference_text,
    settings,
    worst,
)
from kinetograph.tests.host.workbench import Seen, relative
from kinetograph.tests.modules.test_cogvideox_fun import resized
from kinetograph.tests.modules.test_cogvideox_model import right_angles, tables_of
from kinetograph.tests.modules.test_cogvideox_vae import decode_as_fun

pytestmark = pytest.mark.newest

SEED, STEPS, TOLERANCE = 7, 5, 1e-4
PLAIN = {"mode": "mask resized", "image_noise": "none", "seed": 0}
EXACT = {"sampler_name": "cogvideox_ddim", "scheduler": "trailing", "steps": STEPS}


@pytest.fixture(scope="module")
def ours(base, nodes):  # noqa: F811
    """A function that loads one variant through our loader, once."""
    runs = {}

    def load(variant):
        if variant not in runs:
            tiny.write_pipeline(base / "models" / "CogVideo" / f"tiny-{variant}", variant)
            runs[variant] = OurRun(nodes, variant)
        return runs[variant]

    return load


def draw(frames, height=tiny.HEIGHT, width=tiny.WIDTH, seed=1):
    """8-bit frames (f, h, w, 3) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), generator=generator) / 255


class Clip:
    """What the reference is told: a video (f, h, w, 3) and a mask (f, h, w), 1 where it is made anew."""

    def __init__(self, video, mask):
        self.video, self.mask = video, mask

    @property
    def size(self):
        frames, height, width, _ = self.video.shape
        return (frames + 3) // 4, height // 8, width // 8

    def shown(self):
        """(1, 3, f, h, w) in -1..1, -1 where it is hidden."""
        pixels = (self.video * 2 - 1).movedim(-1, 0)[None]
        return torch.where(self.mask < 0.5, pixels, torch.tensor(-1.0))

    def channels(self, encode, scale):
        """(1, 17, t, h, w) by the reference's rules; `encode` gives (1, 16, t, h, w) of pixels in -1..1."""
        t, h, w = self.size
        if (self.mask == 1).all():
            return torch.zeros(1, 17, t, h, w)
        known = (1 - (self.mask >= 0.5).float())[None, None]
        cells = [F.interpolate(known[:, :, :1], size=(1, h, w), mode="trilinear", align_corners=False)]
        if t > 1:
            rest = F.interpolate(known[:, :, 1:], size=(t - 1, h, w), mode="trilinear", align_corners=False)
            cells.append(rest)
        return torch.cat([torch.cat(cells, dim=2) * scale, encode(self.shown()) * scale], dim=1)


def ends(first, last, frames=tiny.FRAMES, height=tiny.HEIGHT, width=tiny.WIDTH):
    """(what our node is told, the reference's clip) of a clip with so many known frames at its ends."""
    pictures = draw(first + last, height, width)
    video, mask = pictures[:1].repeat(frames, 1, 1, 1), torch.ones(frames, height, width)
    video[:first], mask[:first] = pictures[:first], 0
    told = {"start_images": pictures[:first]}
    if last:
        video[-1], mask[-1] = pictures[-1], 0
        told["end_image"] = pictures[-1:]
    return told, Clip(video, mask)


def redrawn(masks, frames=tiny.FRAMES, height=tiny.HEIGHT, width=tiny.WIDTH):
    """The same of a video with one mask for all frames, or one per frame, greys in it."""
    video = draw(frames, height, width)
    mask = torch.rand(masks, height, width, generator=torch.Generator().manual_seed(2))
    mask[:, : height // 2, : width // 2] = 1
    return {"video": video, "mask": mask}, Clip(video, mask.expand(frames, -1, -1))


def nothing(frames=tiny.FRAMES, height=tiny.HEIGHT, width=tiny.WIDTH):
    return {}, Clip(torch.zeros(frames, height, width, 3), torch.ones(frames, height, width))


WIDE = {"height": 48, "width": 96}
# name -> (variant, what is known)
CASES = {
    "text to video": ("5B-InP", nothing()),
    "image to video": ("5B-InP", ends(1, 0)),
    "first and last": ("5B-InP", ends(1, 1)),
    "continuation": ("5B-InP", ends(4, 0)),
    "inpaint, a mask per frame": ("5B-InP", redrawn(tiny.FRAMES)),
    "inpaint, one mask": ("5B-InP", redrawn(1)),
    "2B": ("2B-InP", redrawn(1)),
    "2B at another size": ("2B-InP", ends(1, 1, **WIDE)),
    "1.5, 4 latents": ("1.5-5B-InP", ends(1, 1, 13)),
    "1.5, 2 latents": ("1.5-5B-InP", ends(1, 0, 5)),
    "1.5, 1 latent": ("1.5-5B-InP", redrawn(1, 1)),
}


def scheduler():
    """Of the published scheduler_config.json (482 bytes, the same for all releases), as Fun's own sampler builds it."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=True, steps_offset=0, rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip


class Reference:
    """Fun's pipeline of one variant over the tiny weights."""

    def __init__(self, variant, config, size):
        self.config, (t, h, w) = config, size
        self.transformer, self.vae = tiny.transformer(variant), tiny.vae(variant)
        self.tables = None
        self.lone = t == 1 and config.patch_size_t == 2
        if config.rotary:
            self.tables = tables_of(right_angles(config, 2 if self.lone else t, h, w))
        else:
            resized(self.transformer, t, h, w)
        self.scale = self.vae.config.scaling_factor

    def velocity(self, x_bcthw, t, text):
        x = F.pad(x_bcthw, (0, 0, 0, 0, 0, 1)) if self.lone else x_bcthw
        v = self.transformer(
            x.transpose(1, 2), text, t.expand(len(x)), image_rotary_emb=self.tables, return_dict=False
        )
        return v[0].transpose(1, 2)[:, :, : x_bcthw.shape[2]]

    def encode(self, pixels):
        return self.vae.encode(pixels).latent_dist.mode()

    def latents(self, start, beside, process, timesteps):
        text = torch.cat([reference_text(""), reference_text("a red circle moving left")])
        x = start
        for t in timesteps:
            both = torch.cat([torch.cat([x, x]), torch.cat([beside, beside])], dim=1)
            without, with_prompt = self.velocity(both, t, text).chunk(2)
            x = process.step(without + CFG * (with_prompt - without), t, x).prev_sample
        return x

    def frames(self, x, monkeypatch):
        """(f, 3, h, w) in 0..1; V1.5 decodes as Fun does."""
        z = x / self.scale
        newer = self.config.patch_size_t == 2
        pixels = decode_as_fun(self.vae, z, monkeypatch) if newer else self.vae.decode(z).sample
        return (pixels / 2 + 0.5).clamp(0, 1)[0].transpose(0, 1)


def condition(run, latent, mode=PLAIN, **told):
    chosen = {"fit": "exact", "mode": mode, "positive": run.positive, "negative": run.negative, **told}
    return run.nodes["InpaintConditioning"].execute(run.model, run.vae, latent, **chosen).args


def empty(run, clip):
    frames, height, width, _ = clip.video.shape
    return run.nodes["VideoLatent"].execute("cogvideox", width, height, frames, 1, run.model).args[0]


def start(clip):
    """The noise that the host draws, (1, 16, t, h, w)."""
    return torch.randn((1, 16, *clip.size), generator=torch.Generator().manual_seed(SEED))


def sampled(run, latent, positive, negative, **changes):
    """(what the network saw beside the noise at every call, the LATENT)."""
    seen = Seen(run.model)
    chosen = {
        "seed": SEED,
        "guidance": {"guidance": "constant", "cfg": CFG},
        "denoise": 1.0,
        "preview": False,
    }
    latent = run.nodes["VideoSampler"].execute(
        seen.model, positive, negative, latent, **{**chosen, **EXACT, **changes}
    )
    return [call["x"][:, 16:] for call in seen.calls], latent.args[0]


def own_encode(run):
    """Our autoencoder on pixels (1, 3, f, h, w) in -1..1."""
    return lambda pixels: run.vae.first_stage_model.encode(pixels)


@pytest.mark.parametrize("name", CASES)
def test_inp_is_the_composed_reference(ours, name, monkeypatch):
    """The 17 channels to the last bit, with one autoencoder for both; frames with the reference's own."""
    variant, (told, clip) = CASES[name]
    run = ours(variant)
    config = run.model.model.recipe.config
    theirs = Reference(variant, config, clip.size)
    latent = empty(run, clip)
    positive, negative, latent = condition(run, latent, **told)
    beside, result = sampled(run, latent, positive, negative)

    expected = clip.channels(own_encode(run), theirs.scale)
    assert len(beside) == STEPS
    assert all(torch.equal(part, expected) for each in beside for part in each.split(1))
    channels = clip.channels(theirs.encode, theirs.scale)
    assert (
        channels.any() == expected.any() and (expected - channels).abs().max() <= 1e-5 * channels.abs().max()
    )
    process = scheduler()
    process.set_timesteps(STEPS)
    z = theirs.latents(start(clip), channels, process, process.timesteps)
    assert worst(run.frames(result), theirs.frames(z, monkeypatch)) <= TOLERANCE
    assert run.frames(result).shape == clip.video.shape


def test_the_hosts_ddim_differs_only_by_its_finite_sigma(ours):
    """The host's ddim, the choice of the templates, starts from sigma 4096 and not from infinity."""
    run, (told, clip) = ours("5B-InP"), ends(1, 1)
    positive, negative, latent = condition(run, empty(run, clip), **told)
    _, exact = sampled(run, latent, positive, negative)
    _, hosts = sampled(run, latent, positive, negative, sampler_name="ddim")
    assert 1e-6 < ((exact["samples"] - hosts["samples"]).norm() / exact["samples"].norm()).item() < 1e-3


def test_video_to_video_without_a_mask_is_the_composed_reference(ours, monkeypatch):
    """Silent channels, and an encoded clip with the noise of the step that the strength begins with."""
    strength, total = 0.8, 10
    run, (_, clip) = ours("5B-InP"), redrawn(1)
    encoded = run.nodes["VAEEncodeChunked"].execute(run.vae, clip.video, {"posterior": "sample", "seed": 5})
    positive, negative, latent = condition(run, encoded.args[0])
    steps = int(total * strength)
    beside, result = sampled(run, latent, positive, negative, steps=steps, denoise=strength)
    assert len(beside) == steps and not any(each.any() for each in beside)

    theirs = Reference("5B-InP", run.model.model.recipe.config, clip.size)
    pixels = (clip.video * 2 - 1).movedim(-1, 0)[None]
    z = theirs.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(5)) * theirs.scale
    process = scheduler()
    process.set_timesteps(total)
    timesteps = process.timesteps[total - steps :]
    noisy = process.add_noise(z, start(clip), timesteps[:1])
    z = theirs.latents(noisy, torch.zeros(1, 17, *clip.size), process, timesteps)
    assert worst(run.frames(result), theirs.frames(z, monkeypatch)) <= TOLERANCE


@pytest.mark.parametrize("told_by", ["config.json", "release"])
def test_what_is_known_is_noised_as_the_config_says(ours, base, nodes, told_by):  # noqa: F811
    """0.0563 on all that is not black, before the autoencoder: V1.1 5B says it in its config.json, V1.5 without."""
    variant = {"config.json": "5B-InP", "release": "1.5-5B-InP"}[told_by]
    plain = ours(variant)
    run = plain
    if told_by == "config.json":
        assert condition_noise(plain) == 0
        folder = base / "models" / "CogVideo" / "tiny-noised"
        tiny.write_pipeline(folder, variant)
        transformer = tiny.transformer(variant)
        transformer.register_to_config(add_noise_in_inpaint_model=True)
        transformer.save_pretrained(folder / "transformer")
        run = OurRun(nodes, "noised")
    assert condition_noise(run) == 0.0563
    told, clip = ends(1, 1, 13)
    told["start_images"][:, :20], clip.video[:, :20] = 0, 0
    clip.video[-1] = told["end_image"]
    trained = {**PLAIN, "image_noise": "as trained", "seed": 11}
    latents = [
        condition(run, empty(run, clip), mode, **told)[0][0][1]["concat_latent_image"]
        for mode in (trained, PLAIN)
    ]
    pixels = clip.shown()
    noise = torch.randn((13, *pixels.shape[3:], 3), generator=torch.Generator().manual_seed(11))
    noised = torch.where(pixels == -1, pixels, pixels + 0.0563 * noise.movedim(-1, 0)[None])
    vae = tiny.vae(variant)
    for ours_latents, shown in zip(latents, (noised, pixels), strict=True):
        assert relative(ours_latents, vae.encode(shown).latent_dist.mode()) <= 1e-5
    assert relative(latents[0], latents[1]) > 1e-3


def condition_noise(run):
    """What the node adds by default to what is known."""
    from kinetograph.nodes.host.description import describe

    return describe(run.model, "a test").image_noise


def test_control_is_diffusers(ours):
    from diffusers import CogVideoXFunControlPipeline

    run, video = ours("5B-Control"), draw(tiny.FRAMES, seed=4)
    latent = run.empty()
    follow = run.nodes["ControlVideoConditioning"]
    positive, negative = follow.execute(run.positive, run.negative, run.vae, video, latent, "exact").args
    frames = run.frames(run.sample(latent, positive, negative))
    pipe = reference(CogVideoXFunControlPipeline, "5B-Control")
    theirs = pipe(
        control_video=list(video.movedim(-1, 1)),
        height=tiny.HEIGHT,
        width=tiny.WIDTH,
        **settings(latents=noise(tiny.FRAMES)),
    ).frames[0]
    assert worst(frames, theirs) <= 1e-5


def test_decode_follows_the_transformer_or_the_choice(ours, base):
    """The VAE learns from the transformer how to cut a clip; an odd count of latents tells the two ways apart."""
    run = ours("1.5-5B-InP")
    z = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    frames = {
        decode: OurDecode(run, "1.5-5B-InP", decode)(z) for decode in ("from the transformer", "base", "fun")
    }
    assert torch.equal(frames["from the transformer"], frames["fun"])
    assert relative(frames["base"], frames["fun"]) > 1e-2
    older = {decode: OurDecode(run, "5B", decode)(z) for decode in ("from the transformer", "base")}
    assert torch.equal(older["from the transformer"], older["base"])


class OurDecode:
    """Our loader's VAE with a choice of `decode`."""

    def __init__(self, run, variant, decode):
        own = "from the model's folder"
        loaded = run.nodes["CogVideoXLoader"].execute(f"CogVideo/tiny-{variant}", own, own, "auto", decode)
        self.vae = loaded.args[2]

    def __call__(self, z):
        return self.vae.decode(z)
