"""Teaches a trained text-to-video transformer to paint into a known clip, or to follow one.

Layout and conditioning are those of CogVideoX-Fun: behind the 16 noisy channels lie a mask and 16 channels of the
known clip (InP), or 16 channels of the clip to follow (Control). The text encoder and the VAE stay as they are, the
transformer starts from the checkpoint that is shipped.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .check import decode, noise_process, sample_ddim
from .detector import centroids, foreground, read_clip
from .latents import SCALE
from .optimizers import BlockOptimizer
from .parts import (
    CONTROL_MODEL,
    CONTROL_SETTINGS,
    INPAINT_MODEL,
    INPAINT_SETTINGS,
    MODEL_FOLDER,
    build_text_encoder,
    build_transformer,
    build_vae,
    pack,
)
from .progress import read_log
from .scenes import Scene, draw_scene, draw_scenes, draw_silhouettes
from .shapes import MOTIONS, SHAPES, all_subjects, sample_clip
from .ship import WEIGHTS, half, rows_of
from .train_image import psnr
from .train_transformer import DROP, HIGH_NOISE, LOG_EVERY, lr_at
from .training import Averaged, Plan, mean_of, squared_errors, train

GENTLE = 0.5  # of the learning rate that the transformer was trained with
ENCODE = 128  # clips at once
MISNAMED = 0.5  # part of Control's captions with another shape and motion than the clip to follow
FIRST_SEED = 50_000_000
SAVE_EVERY = 250
UNSEEN_SEED, CHECKED = 90_000_000, 32
GUIDANCE, STEPS = 2.0, 20  # of the checks


@dataclass(frozen=True)
class Pool:
    """Scaled latents (n, 16, t, h, w), what lies beside the noise (n, 17, t, h, w), and places of captions (n)."""

    latents: Tensor
    beside: Tensor
    captions: Tensor


def captions() -> list[str]:
    """Every caption in the order of `all_subjects`, then the empty one."""
    return [sample_clip(0, subject).caption for subject in all_subjects()] + [""]


@torch.no_grad()
def caption_features(file: Path) -> Tensor:
    """Text features (n, l, d) of `captions()` from the shipped encoder; computed on the first call."""
    if not file.exists():
        from .tokens import Vocabulary

        words = Vocabulary()
        stored = {
            k: v.float() for k, v in load_file(MODEL_FOLDER / "text_encoder" / "model.safetensors").items()
        }
        stored["shared.weight"] = stored["shared.weight"][words.rows]
        encoder = build_text_encoder(len(words.rows)).eval()
        encoder.load_state_dict(stored, strict=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(encoder(words.encode(captions())).last_hidden_state, file)
    return torch.load(file, weights_only=True)


def shipped_vae(device: str) -> nn.Module:
    """The autoencoder of the shipped checkpoint, in float32."""
    vae = build_vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(MODEL_FOLDER / "vae" / WEIGHTS).items()})
    return vae.to(device).eval()


@torch.no_grad()
def encode(vae: nn.Module, frames_nfhwc: Tensor) -> Tensor:
    """Scaled latents (n, 16, t, h, w) of frames in 0..1."""
    return vae.encode((frames_nfhwc * 2 - 1).permute(0, 4, 1, 2, 3)) * SCALE


def known_clips(vae: nn.Module, seeds: Sequence[int], device: str) -> Tensor:
    """Of InP: what is known of the scenes, as the sampler of a user makes it. None where nothing is."""
    pack()
    from kinetograph.modules.conditioning.inpaint import latent_mask

    drawn = [draw_scene(seed) for seed in seeds]
    masks = torch.stack([known.mask() for _, known in drawn]).to(device)
    pixels = draw_scenes([scene for scene, _ in drawn], device)
    seen = encode(vae, torch.where(masks[..., None] < 0.5, pixels, 0.0))
    cells = torch.cat([latent_mask(mask, seen.shape[2], 8) for mask in masks])
    beside = torch.cat([(1 - cells) * SCALE, seen], dim=1)
    beside[torch.tensor([known.is_nothing for _, known in drawn], device=device)] = 0
    return beside


def silhouettes(vae: nn.Module, seeds: Sequence[int], device: str) -> Tensor:
    """Of Control: where each scene's shape is."""
    return encode(vae, draw_silhouettes([draw_scene(seed)[0] for seed in seeds], device))


def own_scene(seed: int) -> Scene:
    """What a caption of InP tells: the scene itself."""
    return draw_scene(seed)[0]


def misnamed_scene(seed: int) -> Scene:
    """What a caption of Control tells: of some clips another shape and motion, so that only colour is learned from it."""
    scene, dice = draw_scene(seed)[0], random.Random(-seed)
    if dice.random() >= MISNAMED:
        return scene
    return replace(scene, shape=dice.choice(SHAPES), motion=dice.choice(list(MOTIONS)))


@dataclass(frozen=True)
class Recipe:
    """What makes a kind of CogVideoX-Fun: its channels beside the noise, its captions, and how much it is shown."""

    settings: dict[str, Any]
    file: Path
    beside: Callable[[nn.Module, Sequence[int], str], Tensor]
    told: Callable[[int], Scene]
    figures: Callable[[Tensor, Sequence[int]], dict[str, float]]
    batch: int
    # clips encoded at once, and the steps that they serve
    pool: int
    pool_steps: int


@torch.no_grad()
def draw_pool(recipe: Recipe, vae: nn.Module, first_seed: int, device: str, count: int) -> Pool:
    """Clips of seeds counting up, encoded, with what lies beside their noise."""
    place = {caption: i for i, caption in enumerate(captions())}
    parts = []
    for start in range(first_seed, first_seed + count, ENCODE):
        seeds = range(start, min(start + ENCODE, first_seed + count))
        latents = encode(vae, draw_scenes([draw_scene(seed)[0] for seed in seeds], device))
        places = torch.tensor([place[recipe.told(seed).caption] for seed in seeds])
        parts.append((latents, recipe.beside(vae, seeds, device), places))
    latents, beside, places = (torch.cat(part) for part in zip(*parts, strict=True))
    return Pool(latents, beside, places.to(device))


class FunTraining(Averaged):
    """The transformer, its running mean and the optimizer, one step at a time."""

    def __init__(self, recipe: Recipe, features_nld: Tensor, device: str) -> None:
        self.model, self.average = (build_transformer(recipe.settings).to(device) for _ in range(2))
        self.model.load_state_dict(start_weights(recipe.settings["in_channels"]))
        super().__init__(self.model, self.average, BlockOptimizer(self.model, self.model.transformer_blocks))
        self.recipe, self.features, self.device = recipe, features_nld.to(device), device
        self.process = noise_process()
        self.sigmas = self.process.sigmas().float().to(device)

    def step(self, pool: Pool, lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise alone."""
        batch = self.recipe.batch
        pick = torch.randint(len(pool.latents), (batch,), device=self.device)
        x0, places = pool.latents[pick], pool.captions[pick]
        places = torch.where(torch.rand(batch, device=self.device) < DROP, len(self.features) - 1, places)
        t = ((1 - torch.rand(batch, device=self.device) ** HIGH_NOISE) * 1000).long().clamp(0, 999)
        noise, sigma = torch.randn_like(x0), self.sigmas[t]
        x = self.process.scaled(self.process.noisy(x0, noise, sigma), sigma)
        v = self.model(torch.cat([x, pool.beside[pick]], 1), t, self.features[places])
        errors = squared_errors(v, self.process.target(x0, noise, sigma))
        errors.mean().backward()
        norm = self.apply(lr, number)
        return {"loss": errors.mean().item(), "high": mean_of(errors, t >= 700), "norm": norm}


def start_weights(channels: int) -> dict[str, Tensor]:
    """The shipped text-to-video weights; the channels beside the noise start at zero."""
    own = {k: v.float() for k, v in load_file(MODEL_FOLDER / "transformer" / WEIGHTS).items()}
    weight = own["patch_embed.proj.weight"]
    more = torch.zeros(len(weight), channels - weight.shape[1], *weight.shape[2:])
    own["patch_embed.proj.weight"] = torch.cat([weight, more], 1)
    return own


def train_fun(recipe: Recipe, out: Path, total: int, device: str = "cpu") -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    training = FunTraining(recipe, caption_features(out / "captions.pt"), device)
    vae, pools = shipped_vae(device), dict[int, Pool]()

    def learn(step: int) -> dict[str, float]:
        number = (step - 1) // recipe.pool_steps
        if number not in pools:
            pools.clear()
            pools[number] = draw_pool(recipe, vae, FIRST_SEED + number * recipe.pool, device, recipe.pool)
        lr = GENTLE * lr_at(step - 1, total)
        return {"lr": lr, **training.step(pools[number], lr, step)}

    def look() -> dict[str, Any]:
        return check_fun(recipe, training.average.cpu(), vae.cpu(), training.features.cpu())

    train(out, training, Plan(total, LOG_EVERY, SAVE_EVERY, total), learn, look)


class Beside:
    """A model with the same channels beside the noise at every step."""

    def __init__(self, transformer: nn.Module, beside_bcthw: Tensor) -> None:
        self.transformer, self.beside = transformer, beside_bcthw

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor:
        beside = self.beside.repeat(len(x_bcthw) // len(self.beside), 1, 1, 1, 1)
        return self.transformer(torch.cat([x_bcthw, beside], 1), timestep_b, context_bld)


@torch.no_grad()
def check_fun(
    recipe: Recipe, transformer: nn.Module, vae: nn.Module, features_nld: Tensor, count: int = CHECKED
) -> dict[str, float]:
    """The recipe's figures of clips that no training saw."""
    pool = draw_pool(recipe, vae, UNSEEN_SEED, "cpu", count)
    model, null = Beside(transformer, pool.beside), features_nld[-1:]
    z = sample_ddim(model, features_nld[pool.captions], null, GUIDANCE, STEPS, seed=1)
    figures = recipe.figures(decode(vae, z), range(UNSEEN_SEED, UNSEEN_SEED + count))
    return {name: round(float(value), 4) for name, value in figures.items()}


def kept(frames_nfhwc: Tensor, seeds: Sequence[int]) -> dict[str, float]:
    """Of InP: decibels where the clip is known, pixels that the shape is off its true way and its true end."""
    drawn = [draw_scene(seed) for seed in seeds]
    true = draw_scenes([scene for scene, _ in drawn])
    rows = [i for i, (_, known) in enumerate(drawn) if not known.is_nothing]
    ends = [i for i in rows if drawn[i][1].end]
    masks = {i: drawn[i][1].mask() < 0.5 for i in rows}
    known = [psnr(frames_nfhwc[i][masks[i]][None], true[i][masks[i]][None]) for i in rows]
    off = {i: (centres(frames_nfhwc[i]) - centres(true[i])).norm(dim=-1) for i in rows}
    return {
        "known_db": float(torch.cat(known).mean()),
        "off_path": float(torch.stack([off[i] for i in rows]).mean()),
        "off_end": max(float(off[i][-1]) for i in ends),
    }


def followed(frames_nfhwc: Tensor, seeds: Sequence[int]) -> dict[str, float]:
    """Of Control: part of the clips of the caption's colour and of the shape to follow, and pixels off its way."""
    scenes = [draw_scene(seed)[0] for seed in seeds]
    seen = [read_clip(frames) for frames in frames_nfhwc]
    pairs = list(zip(seen, scenes, strict=True))
    off = [
        centres(frames) - centres(true)
        for frames, true in zip(frames_nfhwc, draw_scenes(scenes), strict=True)
    ]
    return {
        "colour": sum(reading.colour == scene.colour for reading, scene in pairs) / len(pairs),
        "shape": sum(reading.shape == scene.shape for reading, scene in pairs) / len(pairs),
        "off_path": float(torch.stack(off).norm(dim=-1).mean()),
    }


def centres(frames_fhwc: Tensor) -> Tensor:
    """Where the shape is in each frame, x then y."""
    cover = foreground(frames_fhwc)
    return centroids(cover * (cover > 0.2))


INPAINT = Recipe(INPAINT_SETTINGS, INPAINT_MODEL, known_clips, own_scene, kept, 128, 4096, 500)
CONTROL = Recipe(CONTROL_SETTINGS, CONTROL_MODEL, silhouettes, misnamed_scene, followed, 32, 1024, 750)


def ship_fun(recipe: Recipe, out: Path, file: Path | None = None) -> None:
    """The running mean of the last saved step to one file with its config inside, and figures beside it."""
    file = file or recipe.file
    training = FunTraining(recipe, caption_features(out / "captions.pt"), "cpu")
    step = training.open(out)
    metadata = {"format": "pt", "config": json.dumps(recipe.settings)}
    save_file(half(dict(training.average.state_dict())), file, metadata=metadata)
    figures = check_fun(recipe, training.average, shipped_vae("cpu"), training.features)
    losses = [row for row in read_log(out / "log.jsonl") if row["step"] <= step]
    head = {"step": step, "clips": CHECKED, "guidance": GUIDANCE, "sampling_steps": STEPS, **figures}
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in head.items()]
    lines += [f'  "transformer": {rows_of(losses)}']
    file.with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
