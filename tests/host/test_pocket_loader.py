"""Pocket Loader on the real host: what it gives is the host's own SD1.5, for samplers, LoRA, ControlNet and clones."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.pocket_sd import TEXT, UNET
from kinetograph.pocket.detector import read_clip
from kinetograph.pocket.sd import world
from kinetograph.pocket.sd.parts import MODEL, open_text
from kinetograph.pocket.sd.train_base import BaseTraining, add_noise
from kinetograph.pocket.shapes import draw
from kinetograph.pocket.tokens import Vocabulary
from kinetograph.tests.host.workbench import Workbench, run

NAME = f"SD/{MODEL.name}"
CAPTION = "a red circle moving left"
NEAR = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    (base / "models" / "SD").mkdir(exist_ok=True)
    shutil.copy(MODEL, base / "models" / NAME)
    return Workbench()


@pytest.fixture(scope="module")
def pocket(bench):
    return run(bench.ours["PocketLoader"], model=NAME)


def sampled(bench, model, clip, steps=3, control=None, seed=3):
    """Latents of four pictures by the host's own KSampler."""
    positive, negative = (run(bench.host.CLIPTextEncode, clip=clip, text=text)[0] for text in (CAPTION, ""))
    if control is not None:
        positive = [[told, {**rest, "control": control}] for told, rest in positive]
    latent = run(bench.host.EmptyLatentImage, width=64, height=64, batch_size=4)[0]
    schedule = {"seed": seed, "steps": steps, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    parts = {"positive": positive, "negative": negative, "latent_image": latent, "denoise": 1.0}
    return run(bench.host.KSampler, model=model, **parts, **schedule)[0]["samples"]


def test_model_is_the_hosts_sd15(pocket):
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_sampling
    import comfy.supported_models

    model = pocket[0].model
    assert type(model) is comfy.model_base.BaseModel
    assert type(model.model_config) is comfy.supported_models.SD15
    assert isinstance(model.latent_format, comfy.latent_formats.SD15)
    assert isinstance(model.model_sampling, comfy.model_sampling.EPS)
    assert model.model_sampling.sigma_max == pytest.approx(14.6146, abs=1e-3)
    stored = {
        key.removeprefix(UNET): value for key, value in load_file(MODEL).items() if key.startswith(UNET)
    }
    held = model.diffusion_model.state_dict()
    assert held.keys() == stored.keys()
    assert all(torch.equal(held[key].cpu().half(), value) for key, value in stored.items())


def test_pictures_show_what_is_said(bench, pocket):
    model, clip, vae = pocket
    frames = run(bench.host.VAEDecode, vae=vae, samples={"samples": sampled(bench, model, clip, 20)})[0]
    seen = [read_clip(frame[None]) for frame in frames]
    assert [reading.colour for reading in seen].count("red") >= 3
    # nothing joins them: the shape lies somewhere else in each
    assert (frames - frames.roll(1, 0)).square().mean((1, 2, 3)).min() > 1e-3


def test_vae_keeps_a_picture(bench, pocket):
    clips = [world.photo(seed).clip for seed in range(4)]
    pictures = torch.cat([draw(clip, 1) for clip in clips])
    latent = run(bench.host.VAEEncode, vae=pocket[2], pixels=pictures)[0]
    assert latent["samples"].shape == (4, 4, 8, 8)
    # scaled as the host scales SD1.5's, they are what the UNet was trained on
    wanted = world.draw_latents(clips, 1)[:, 0]
    assert (latent["samples"] * 0.18215 - wanted).square().mean() < 0.05 * wanted.square().mean()
    back = run(bench.host.VAEDecode, vae=pocket[2], samples=latent)[0]
    assert -10 * (back - pictures).square().mean().log10() > 25


@torch.no_grad()
def test_text_is_that_of_transformers(pocket):
    words = Vocabulary()
    text = open_text(words)
    stored = {
        key.removeprefix(TEXT): v.float() for key, v in load_file(MODEL).items() if key.startswith(TEXT)
    }
    table = stored["shared.weight"][words.rows]
    text.load_state_dict({**stored, "shared.weight": table, "encoder.embed_tokens.weight": table})
    for caption in (CAPTION, "a blue square", ""):
        ours = pocket[1].encode_from_tokens(pocket[1].tokenize(caption))
        torch.testing.assert_close(ours, text(words.encode([caption])).last_hidden_state, **NEAR)


def test_loras_of_the_host_reach_unet_and_text(bench, pocket, base):
    torch.manual_seed(0)
    unet, text = (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
    )
    shapes = {unet: (64, 64), text: (64, 32)}
    lora = {
        f"{key}.lora_{half}.weight": torch.randn(*shape)
        for key, (rows, columns) in shapes.items()
        for half, shape in (("up", (rows, 2)), ("down", (2, columns)))
    }
    (base / "models" / "loras").mkdir(exist_ok=True)
    save_file(lora, base / "models" / "loras" / "pocket-lora.safetensors")
    strengths = {"strength_model": 0.5, "strength_clip": 0.5}
    model, clip = run(
        bench.host.LoraLoader,
        model=pocket[0],
        clip=pocket[1],
        lora_name="pocket-lora.safetensors",
        **strengths,
    )
    keys = (
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        f"{text.removeprefix('text_encoders.')}.weight",
    )
    for patcher, key in zip((model, clip.patcher), keys, strict=True):
        assert list(patcher.patches) == [key]
    plain = sampled(bench, pocket[0], pocket[1])
    assert not torch.allclose(sampled(bench, model, pocket[1]), plain)
    assert torch.equal(sampled(bench, pocket[0], pocket[1]), plain)


def test_a_controlnet_reaches_the_blocks(bench, pocket):
    from comfy.controlnet import ControlBase

    class Push(ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, *args):
            middle = torch.full(
                (len(x_noisy), 64, x_noisy.shape[2] // 2, x_noisy.shape[3] // 2), self.strength
            )
            return {"input": [], "middle": [middle], "output": []}

        def copy(self):
            copied = Push()
            self.copy_to(copied)
            return copied

    def pushed(strength):
        control = Push()
        control.strength = strength
        return sampled(bench, *pocket[:2], control=control)

    plain = sampled(bench, *pocket[:2])
    assert torch.equal(pushed(0.0), plain)
    assert not torch.allclose(pushed(2.0), plain)


def test_a_deep_clone_draws_the_same_with_weights_of_its_own(bench, pocket):
    patcher = pocket[0]
    build, arguments = patcher.cached_patcher_init
    again = build(*arguments, disable_dynamic=True)
    ours, theirs = (dict(each.model.named_parameters()) for each in (patcher, again))
    assert ours.keys() == theirs.keys()
    assert not {value.data_ptr() for value in ours.values()} & {value.data_ptr() for value in theirs.values()}
    assert torch.equal(sampled(bench, again, pocket[1]), sampled(bench, patcher, pocket[1]))


HARMS = {
    "not a pocket SD": lambda weights: {key: v for key, v in weights.items() if not key.startswith(TEXT)},
    "1 missing (middle_block.0.in_layers.0.weight)": lambda weights: {
        key: v for key, v in weights.items() if key != f"{UNET}middle_block.0.in_layers.0.weight"
    },
    "1 misshapen (time_embed.2.weight)": lambda weights: {
        **weights,
        f"{UNET}time_embed.2.weight": torch.zeros(256, 8),
    },
    "none of SD1.5's kind": lambda weights: {
        **weights,
        f"{UNET}label_emb.0.0.weight": torch.zeros(256, 2816),
    },
    "1 unexpected (taesd_encoder.0.scale)": lambda weights: {
        **weights,
        "first_stage_model.taesd_encoder.0.scale": torch.zeros(1),
    },
}


@pytest.mark.parametrize("said", HARMS)
def test_other_files_are_refused_at_the_post(bench, base, said):
    file = base / "models" / "SD" / "harmed.safetensors"
    save_file(HARMS[said](load_file(MODEL)), file)
    problem = bench.ours["PocketLoader"].validate_inputs("SD/harmed.safetensors")
    file.unlink()
    assert problem.startswith("harmed.safetensors is no pocket SD")
    if said in problem or said.startswith("not a"):
        return
    pytest.fail(problem)


def test_a_file_that_is_not_there_is_named(bench):
    problem = bench.ours["PocketLoader"].validate_inputs("SD/absent.safetensors")
    assert "SD/absent.safetensors" in problem and "models/SD" in problem


def test_a_replaced_file_is_loaded_again(bench, base):
    loader, file = bench.ours["PocketLoader"], base / "models" / "SD" / "replaced.safetensors"
    shutil.copy(MODEL, file)
    before = loader.fingerprint_inputs("SD/replaced.safetensors")
    assert loader.fingerprint_inputs("SD/replaced.safetensors") == before
    weights = load_file(file)
    file.unlink()
    save_file(weights | {f"{UNET}out.2.bias": torch.ones(4)}, file)
    assert loader.fingerprint_inputs("SD/replaced.safetensors") != before
    model = run(loader, model="SD/replaced.safetensors")[0]
    assert torch.equal(model.model.diffusion_model.out[2].bias.float().cpu(), torch.ones(4))
    file.unlink()


@pytest.mark.newest
def test_training_starts_as_noise_and_learns(comfy_here):
    """On the host's own UNet: epsilon is the input at first, near enough, and photos are learned."""
    torch.manual_seed(0)
    training = BaseTraining(Vocabulary())
    x0 = world.draw_latents([world.photo(seed).clip for seed in range(8)], 1)
    drawn = add_noise(x0, ["scaled_linear"] * 8)
    with torch.no_grad():
        said = training.model.unet(
            drawn.x_bfchw[:, 0], drawn.timestep_b, training.model.context(training.words.encode([""] * 8))
        )
    assert (said - drawn.x_bfchw[:, 0]).std() < 0.2
    seen = []
    for number in range(1, 9):
        torch.manual_seed(1)
        seen.append(training.step(list(range(8)), 1e-3, number))
    assert seen[-1]["loss"] < 0.9 * seen[0]["loss"]
    # ... and motion words are passed on to where motion modules stand
    assert seen[-1]["heard"] < seen[0]["heard"] - 0.03
