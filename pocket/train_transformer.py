"""Trains the pocket transformer and its text encoder together, on cached latents."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .check import check, noise_process
from .latents import World, open_world
from .optimizers import BlockOptimizer
from .parts import TRANSFORMER_SETTINGS, TextToLatents
from .tokens import Vocabulary
from .training import Averaged, Plan, mean_of, squared_errors, train

BATCH = 32
PEAK_LR = 2e-3
WARM_UP = 100  # steps
DROP = 0.1  # part of the captions left out, for guidance
HIGH_NOISE = 1.5  # t = 1000 (1 - u ** HIGH_NOISE): what a clip shows is settled at high noise
OPEN_GATE = 0.3  # at the start, so that text reaches the picture from the first step
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 250, 500


@dataclass(frozen=True)
class Sample:
    """One batch: noisy latents at unit variance, the v to predict, timesteps, token places."""

    x_bcthw: Tensor
    v_bcthw: Tensor
    timestep_b: Tensor
    ids_bl: Tensor


class Sampler:
    """Draws batches of noisy latents at random timesteps."""

    def __init__(self, world: World, words: Vocabulary) -> None:
        self.latents = world.latents
        self.ids, self.null = words.encode(world.captions), words.encode([""])
        self.process = noise_process()
        self.sigmas = self.process.sigmas().float()

    def draw(self) -> Sample:
        pick = torch.randint(len(self.latents), (BATCH,))
        return self.noisy(pick, told=pick)

    def noisy(self, pick: Tensor, told: Tensor) -> Sample:
        """Clips `pick` with the captions of clips `told`."""
        ids = torch.where(torch.rand(BATCH, 1) < DROP, self.null, self.ids[told])
        t = ((1 - torch.rand(BATCH) ** HIGH_NOISE) * 1000).long().clamp(0, 999)
        x0 = self.latents[pick]
        noise = torch.randn_like(x0)
        sigma = self.sigmas[t]
        x = self.process.scaled(self.process.noisy(x0, noise, sigma), sigma)
        return Sample(x, self.process.target(x0, noise, sigma), t, ids)


def start_weights(transformer: nn.Module) -> None:
    """Modulation and output start at zero, all other weights at unit gain."""
    for name, p in transformer.named_parameters():
        if ".norm1.linear." in name or ".norm2.linear." in name:
            nn.init.zeros_(p)
            if name.endswith("bias"):
                rows = p.data.view(6, -1)
                rows[2] = rows[5] = OPEN_GATE  # gates of the image and of the text
        elif name.startswith(("norm_out.linear", "proj_out")):
            nn.init.zeros_(p)
        elif p.dim() >= 2:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        else:
            nn.init.ones_(p) if "norm" in name and name.endswith("weight") else nn.init.zeros_(p)


def lr_at(step: int, total: int) -> float:
    if step < WARM_UP:
        return PEAK_LR * (step + 1) / WARM_UP
    part = min(1.0, (step - WARM_UP) / (total - WARM_UP))
    return PEAK_LR * max(0.01, 0.5 + 0.5 * math.cos(math.pi * part))


class Training(Averaged):
    """The model, its running mean and the optimizer, one step at a time."""

    def __init__(self, words: Vocabulary, settings: dict[str, Any] = TRANSFORMER_SETTINGS) -> None:
        self.model, self.average = (TextToLatents(len(words.rows), settings) for _ in range(2))
        start_weights(self.model.transformer)
        optimizer = BlockOptimizer(self.model, self.model.transformer.transformer_blocks)
        super().__init__(self.model, self.average, optimizer)

    def step(self, sample: Sample, lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise alone."""
        context = self.model.context(sample.ids_bl)
        v = self.model.velocity(sample.x_bcthw, sample.timestep_b, context)
        errors = squared_errors(v, sample.v_bcthw)
        errors.mean().backward()
        norm = self.apply(lr, number)
        return {
            "loss": errors.mean().item(),
            "high": mean_of(errors, sample.timestep_b >= 700),
            "norm": norm,
        }


def train_transformer(out: Path, vae_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    words = Vocabulary()
    world, vae = open_world(vae_run)
    sampler, training = Sampler(world, words), Training(words)

    def learn(step: int) -> dict[str, float]:
        lr = lr_at(step - 1, total)
        return {"lr": lr, **training.step(sampler.draw(), lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training.average, vae, words, 16)[0])
