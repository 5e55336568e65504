"""Trains the shipped text-to-video transformer on, until the outlines of its shapes are whole.

Text encoder and VAE stay as they are: the other CogVideoX models of the pocket share them. Against
`train_transformer`: four times the clips, more of low noise, where outlines are settled, cells far from the shape
count less, and products are in bfloat16.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .check import decode, noise_process, rate, sample_ddim
from .detector import wholeness
from .latents import FIRST_SEED, SCALE, encode_world
from .optimizers import BlockOptimizer
from .parts import MODEL_FOLDER, TRANSFORMER_SETTINGS, build_transformer
from .pixart.parts import attend_to_words
from .progress import read_log
from .shapes import ShapeClip, all_subjects, draw_mask
from .ship import WEIGHTS, draw_losses, save_log, write_part
from .shipped import caption_features, captions, shipped_vae, start_weights
from .train_image import clips_of_each
from .train_transformer import lr_at
from .train_vae import fold_frames
from .training import Averaged, Plan, mean_of, train

CLIPS_PER_SUBJECT = 64
BATCH = 64
GENTLE = 0.5  # of the learning rate that the transformer was trained with
DROP = 0.15  # part of the captions left out, for guidance
LOW_NOISE = 0.75  # t = 1000 (1 - u ** LOW_NOISE)
FAR = 0.25  # what a cell counts that no shape comes near
NEAR = 9  # pixels: cells that the shape touches when it is wider by half of that
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 250, 500
GUIDANCE, STEPS, CHECKED = 2.0, 50, 16  # of the checks: as the workflow draws


@dataclass(frozen=True)
class Clips:
    """Scaled latents (n, 16, t, h, w), what their cells count (n, 1, t, h, w), places of their captions (n)."""

    latents: Tensor
    weights: Tensor
    captions: Tensor


def cell_weights(clips: list[ShapeClip]) -> Tensor:
    """1 for cells that the shape comes near in any of their frames, else FAR: (n, 1, t, h, w)."""
    near = [nn.functional.max_pool2d(draw_mask(clip), NEAR, 1, NEAR // 2) for clip in clips]
    touched = torch.stack([fold_frames(cover[None, None])[0] for cover in near]) > 0
    return torch.where(touched, 1.0, FAR)


def open_clips(out: Path, vae: nn.Module) -> Clips:
    """So many clips of each subject; encoded on the first call."""
    file = out / "world.pt"
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        latents, _ = encode_world(vae, CLIPS_PER_SUBJECT)
        torch.save({"latents": latents}, file)
    clips, place = clips_of_each(FIRST_SEED, CLIPS_PER_SUBJECT), {c: i for i, c in enumerate(captions())}
    latents = torch.load(file, weights_only=True)["latents"] * SCALE
    return Clips(latents, cell_weights(clips), torch.tensor([place[clip.caption] for clip in clips]))


class OutlineTraining(Averaged):
    """The transformer, its running mean and the optimizer, one step at a time."""

    def __init__(self, features_nld: Tensor) -> None:
        # written out, attention takes half of the time in bfloat16, and a compiler can melt it with its neighbours
        self.model = build_transformer(TRANSFORMER_SETTINGS, attend_to_words)
        self.average = build_transformer(TRANSFORMER_SETTINGS)
        self.model.load_state_dict(start_weights(TRANSFORMER_SETTINGS["in_channels"]))
        super().__init__(self.model, self.average, BlockOptimizer(self.model, self.model.transformer_blocks))
        self.velocity: Callable[..., Tensor] = self.model
        self.features, self.process = features_nld, noise_process()
        self.sigmas = self.process.sigmas().float()

    def step(self, clips: Clips, lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise and at low noise alone."""
        pick = torch.randint(len(clips.latents), (BATCH,))
        x0, weights = clips.latents[pick], clips.weights[pick]
        told = torch.where(torch.rand(BATCH) < DROP, len(self.features) - 1, clips.captions[pick])
        t = ((1 - torch.rand(BATCH) ** LOW_NOISE) * 1000).long().clamp(0, 999)
        noise, sigma = torch.randn_like(x0), self.sigmas[t]
        x = self.process.scaled(self.process.noisy(x0, noise, sigma), sigma)
        with torch.autocast("cpu", torch.bfloat16):
            v = self.velocity(x, t, self.features[told])
        squares = (v.float() - self.process.target(x0, noise, sigma)).square().mean(1, keepdim=True)
        errors = (squares * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
        errors.mean().backward()
        norm = self.apply(lr, number)
        parts = {"high": mean_of(errors, t >= 700), "low": mean_of(errors, t < 300)}
        return {"loss": errors.mean().item(), **parts, "norm": norm}


class Told:
    """A transformer as the sampler of the checks takes it."""

    def __init__(self, transformer: nn.Module) -> None:
        self.velocity = transformer


@torch.no_grad()
def check_outlines(
    transformer: nn.Module, vae: nn.Module, features_nld: Tensor, count: int = CHECKED, steps: int = STEPS
) -> tuple[dict[str, float], Tensor]:
    """What the detector reads from clips of `count` subjects, always the same ones, their IoU, and their frames."""
    subjects = random.Random(5).sample(all_subjects(), count)
    told = features_nld[[all_subjects().index(subject) for subject in subjects]]
    z = sample_ddim(Told(transformer), told, features_nld[-1:], GUIDANCE, steps, seed=1)
    frames = decode(vae, z)
    whole = [wholeness(clip, subject[1]) for clip, subject in zip(frames, subjects, strict=True)]
    figures = rate(frames, subjects) | {"iou": sum(whole) / count, "least_iou": min(whole)}
    return {name: round(value, 4) for name, value in figures.items()}, frames


def train_outlines(out: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    vae = shipped_vae()
    clips, training = open_clips(out, vae), OutlineTraining(caption_features())

    if shutil.which("g++"):
        training.velocity = torch.compile(training.model, dynamic=False)

    def learn(step: int) -> dict[str, float]:
        lr = GENTLE * lr_at(step - 1, total)
        return {"lr": lr, **training.step(clips, lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check_outlines(training.average, vae, training.features)[0])


def ship_outlines(out: Path, folder: Path = MODEL_FOLDER) -> None:
    """The running mean of the last saved step to the checkpoint, its log behind those of the earlier training."""
    training = OutlineTraining(caption_features())
    step = training.open(out)
    write_part(folder / "transformer", TRANSFORMER_SETTINGS, WEIGHTS, dict(training.average.state_dict()))
    losses = [row for row in read_log(out / "log.jsonl") if row["step"] <= step]
    checks = [row for row in read_log(out / "checks.jsonl") if row["step"] <= step]
    log = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    save_log(log | {"outline_step": step, "outlines": losses, "outline_checks": checks}, folder)
    first = log["transformer"]
    draw_losses(first + [row | {"step": log["step"] + row["step"]} for row in losses], folder / "loss.png")
