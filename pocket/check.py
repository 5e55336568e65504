"""What a transformer has learned so far: clips drawn with DDIM, read by the detector."""

import random
from typing import Protocol

import torch
from torch import Tensor, nn

from .detector import read_clip
from .latents import SCALE
from .parts import TRANSFORMER_SETTINGS, TextToLatents, pack
from .shapes import all_subjects, sample_clip
from .tokens import Vocabulary

LATENT_SHAPE = (TRANSFORMER_SETTINGS["in_channels"], 5, 8, 8)
LOOKED_AT = ("colour", "shape", "motion")


class Predictor(Protocol):
    """Whatever tells v of scaled latents."""

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor: ...


def alpha_bars() -> Tensor:
    """The family's own schedule at timesteps 0..999, float64."""
    pack()
    from kinetograph.modules.families import COGVIDEOX
    from kinetograph.modules.families.cogvideox.config import CogVideoXConfig

    return COGVIDEOX.network.noise(CogVideoXConfig()).alphas_cumprod()


@torch.no_grad()
def sample_ddim(
    model: Predictor, context_bld: Tensor, null_1ld: Tensor, guidance: float, steps: int, seed: int
) -> Tensor:
    """Scaled latents, one clip per context, with trailing timesteps and classifier-free guidance."""
    bars = alpha_bars().float()
    n = len(context_bld)
    x = torch.randn(n, *LATENT_SHAPE, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([context_bld, null_1ld.expand(n, -1, -1)])
    for step in range(steps):
        t = round(1000 - step * 1000 / steps) - 1
        before = t - 1000 // steps
        bar, goal = bars[t], bars[before] if before >= 0 else torch.tensor(1.0)
        given, free = model.velocity(torch.cat([x, x]), torch.full((2 * n,), t), both).chunk(2)
        v = free + guidance * (given - free)
        clean, noise = bar.sqrt() * x - (1 - bar).sqrt() * v, bar.sqrt() * v + (1 - bar).sqrt() * x
        x = goal.sqrt() * clean + (1 - goal).sqrt() * noise
    return x


@torch.no_grad()
def decode(vae: nn.Module, latents: Tensor, batch: int = 4) -> Tensor:
    """Frames (b, f, h, w, 3) in 0..1 of scaled latents."""
    parts = [vae.decode(z / SCALE) for z in latents.split(batch)]
    return (torch.cat(parts).permute(0, 2, 3, 4, 1) / 2 + 0.5).clamp(0, 1)


def rate(frames_bfhwc: Tensor, subjects: list[tuple[str, str, str]]) -> dict[str, float]:
    """Part of the clips whose colour, shape and motion are read as asked."""
    hits = dict.fromkeys(LOOKED_AT, 0)
    for frames, subject in zip(frames_bfhwc, subjects, strict=True):
        seen = read_clip(frames)
        for name, wanted in zip(LOOKED_AT, subject, strict=True):
            hits[name] += getattr(seen, name) == wanted
    return {name: count / len(subjects) for name, count in hits.items()}


def check(
    model: TextToLatents,
    vae: nn.Module,
    words: Vocabulary,
    count: int,
    guidance: float = 4.0,
    steps: int = 20,
) -> tuple[dict[str, float], Tensor]:
    """Rates over `count` subjects, always the same ones, and the frames."""
    subjects = random.Random(5).sample(all_subjects(), count)
    with torch.no_grad():
        context = model.context(words.encode([sample_clip(0, s).caption for s in subjects]))
        null = model.context(words.encode([""]))
    frames = decode(vae, sample_ddim(model, context, null, guidance, steps, seed=1))
    return rate(frames, subjects), frames
