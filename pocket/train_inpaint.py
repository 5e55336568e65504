"""Teaches a trained text-to-video transformer to paint into a clip of which something is known.

Layout and conditioning are those of CogVideoX-Fun InP: behind the 16 noisy channels a mask and 16 channels of the
known clip. The text encoder and the VAE stay as they are. It starts from the checkpoint that is shipped.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .check import decode, noise_process, sample_ddim
from .detector import centroids, foreground
from .latents import SCALE
from .optimizers import BlockOptimizer
from .parts import (
    INPAINT_MODEL,
    INPAINT_SETTINGS,
    MODEL_FOLDER,
    build_text_encoder,
    build_transformer,
    build_vae,
    pack,
)
from .progress import read_log
from .scenes import draw_scene, draw_scenes
from .shapes import all_subjects, sample_clip
from .ship import WEIGHTS, half, rows_of
from .train_image import psnr
from .train_transformer import DROP, HIGH_NOISE, LOG_EVERY, lr_at
from .training import Averaged, Plan, mean_of, squared_errors, train

BATCH = 128
GENTLE = 0.5  # of the learning rate that the transformer was trained with
POOL, POOL_STEPS = 4096, 500  # clips encoded at once, and the steps that they serve
ENCODE = 128  # clips at once
FIRST_SEED = 50_000_000
SAVE_EVERY = 500
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
def draw_pool(vae: nn.Module, first_seed: int, device: str, count: int = POOL) -> Pool:
    """Clips of seeds counting up, encoded, with what is known of them as the sampler of a user makes it."""
    pack()
    from kinetograph.modules.conditioning.inpaint import latent_mask

    place = {caption: i for i, caption in enumerate(captions())}
    parts = []
    seeds = range(first_seed, first_seed + count)
    for start in range(0, count, ENCODE):
        drawn = [draw_scene(seed) for seed in seeds[start : start + ENCODE]]
        pixels = draw_scenes([scene for scene, _ in drawn], device) * 2 - 1
        masks = torch.stack([known.mask() for _, known in drawn]).to(device)
        hidden = torch.where(masks[..., None] < 0.5, pixels, -1.0)
        latents, seen = (vae.encode(x.permute(0, 4, 1, 2, 3)) for x in (pixels, hidden))
        cells = torch.cat([latent_mask(mask, latents.shape[2], 8) for mask in masks])
        beside = torch.cat([1 - cells, seen], dim=1) * SCALE
        beside[torch.tensor([known.is_nothing for _, known in drawn], device=device)] = 0
        parts.append((latents * SCALE, beside, torch.tensor([place[scene.caption] for scene, _ in drawn])))
    latents, beside, places = (torch.cat(part) for part in zip(*parts, strict=True))
    return Pool(latents, beside, places.to(device))


class InpaintTraining(Averaged):
    """The transformer, its running mean and the optimizer, one step at a time."""

    def __init__(self, features_nld: Tensor, device: str) -> None:
        self.model, self.average = (build_transformer(INPAINT_SETTINGS).to(device) for _ in range(2))
        self.model.load_state_dict(start_weights())
        super().__init__(self.model, self.average, BlockOptimizer(self.model, self.model.transformer_blocks))
        self.features, self.device = features_nld.to(device), device
        self.process = noise_process()
        self.sigmas = self.process.sigmas().float().to(device)

    def step(self, pool: Pool, lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise alone."""
        pick = torch.randint(len(pool.latents), (BATCH,), device=self.device)
        x0, places = pool.latents[pick], pool.captions[pick]
        places = torch.where(torch.rand(BATCH, device=self.device) < DROP, len(self.features) - 1, places)
        t = ((1 - torch.rand(BATCH, device=self.device) ** HIGH_NOISE) * 1000).long().clamp(0, 999)
        noise, sigma = torch.randn_like(x0), self.sigmas[t]
        x = self.process.scaled(self.process.noisy(x0, noise, sigma), sigma)
        v = self.model(torch.cat([x, pool.beside[pick]], 1), t, self.features[places])
        errors = squared_errors(v, self.process.target(x0, noise, sigma))
        errors.mean().backward()
        norm = self.apply(lr, number)
        return {"loss": errors.mean().item(), "high": mean_of(errors, t >= 700), "norm": norm}


def start_weights() -> dict[str, Tensor]:
    """The shipped text-to-video weights; the channels beside the noise start at zero."""
    own = {k: v.float() for k, v in load_file(MODEL_FOLDER / "transformer" / WEIGHTS).items()}
    weight = own["patch_embed.proj.weight"]
    more = torch.zeros(len(weight), INPAINT_SETTINGS["in_channels"] - weight.shape[1], *weight.shape[2:])
    own["patch_embed.proj.weight"] = torch.cat([weight, more], 1)
    return own


def train_inpaint(out: Path, total: int, device: str = "cpu") -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    training, vae = InpaintTraining(caption_features(out / "captions.pt"), device), shipped_vae(device)
    pools: dict[int, Pool] = {}

    def learn(step: int) -> dict[str, float]:
        number = (step - 1) // POOL_STEPS
        if number not in pools:
            pools.clear()
            pools[number] = draw_pool(vae, FIRST_SEED + number * POOL, device)
        lr = GENTLE * lr_at(step - 1, total)
        return {"lr": lr, **training.step(pools[number], lr, step)}

    def look() -> dict[str, Any]:
        return check_inpaint(training.average.cpu(), vae.cpu(), training.features.cpu())

    train(out, training, Plan(total, LOG_EVERY, SAVE_EVERY, total), learn, look)


class Beside:
    """A model with the same channels beside the noise at every step."""

    def __init__(self, transformer: nn.Module, beside_bcthw: Tensor) -> None:
        self.transformer, self.beside = transformer, beside_bcthw

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor:
        beside = self.beside.repeat(len(x_bcthw) // len(self.beside), 1, 1, 1, 1)
        return self.transformer(torch.cat([x_bcthw, beside], 1), timestep_b, context_bld)


@torch.no_grad()
def check_inpaint(transformer: nn.Module, vae: nn.Module, features_nld: Tensor) -> dict[str, float]:
    """Figures of unseen clips: decibels where they are known, pixels that the shape is off its true way."""
    pool = draw_pool(vae, UNSEEN_SEED, "cpu", CHECKED)
    null = features_nld[-1:]
    z = sample_ddim(
        Beside(transformer, pool.beside), features_nld[pool.captions], null, GUIDANCE, STEPS, seed=1
    )
    frames = decode(vae, z)
    drawn = [draw_scene(UNSEEN_SEED + i) for i in range(CHECKED)]
    true = draw_scenes([scene for scene, _ in drawn])
    rows = [i for i, (_, known) in enumerate(drawn) if not known.is_nothing]
    known = [psnr(frames[i][m][None], true[i][m][None]) for i in rows for m in [drawn[i][1].mask() < 0.5]]
    ends = [i for i in rows if drawn[i][1].end]
    off = torch.stack([centres(frames[i]) - centres(true[i]) for i in rows]).norm(dim=-1)
    last = torch.stack([(centres(frames[i]) - centres(true[i]))[-1].norm() for i in ends])
    figures = {"known_db": torch.cat(known).mean(), "off_path": off.mean(), "off_end": last.max()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def centres(frames_fhwc: Tensor) -> Tensor:
    """Where the shape is in each frame, x then y."""
    cover = foreground(frames_fhwc)
    return centroids(cover * (cover > 0.2))


def ship_inpaint(out: Path, file: Path = INPAINT_MODEL) -> None:
    """The running mean of the last saved step to one file with its config inside, and figures beside it."""
    training = InpaintTraining(caption_features(out / "captions.pt"), "cpu")
    step = training.open(out)
    metadata = {"format": "pt", "config": json.dumps(INPAINT_SETTINGS)}
    save_file(half(dict(training.average.state_dict())), file, metadata=metadata)
    figures = check_inpaint(training.average, shipped_vae("cpu"), training.features)
    losses = [row for row in read_log(out / "log.jsonl") if row["step"] <= step]
    head = {"step": step, "clips": CHECKED, "guidance": GUIDANCE, "sampling_steps": STEPS, **figures}
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in head.items()]
    lines += [f'  "transformer": {rows_of(losses)}']
    file.with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
