"""What a transformer has learned so far: clips drawn with DDIM, read by the detector."""

import random
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from .detector import read_clip
from .latents import SCALE
from .parts import TRANSFORMER_SETTINGS, TextToLatents, pack
from .shapes import all_subjects, sample_clip
from .tokens import Vocabulary

if TYPE_CHECKING:
    from ..modules.noise import DiscreteNoise

LATENT_SHAPE = (TRANSFORMER_SETTINGS["in_channels"], 5, 8, 8)
LOOKED_AT = ("colour", "shape", "motion")


class Predictor(Protocol):
    """Whatever tells v of scaled latents."""

    def velocity(self, x_bcthw: Tensor, timestep_b: Tensor, context_bld: Tensor) -> Tensor: ...


def noise_process() -> "DiscreteNoise":
    """The family's own, of 5B: that of the pocket model."""
    pack()
    from kinetograph.modules.families.cogvideox import noise
    from kinetograph.modules.families.cogvideox.config import CogVideoXConfig

    return noise(CogVideoXConfig())


@torch.no_grad()
def sample_ddim(
    model: Predictor, context_bld: Tensor, null_1ld: Tensor, guidance: float, steps: int, seed: int
) -> Tensor:
    """Scaled latents, one clip per context, with trailing timesteps and classifier-free guidance."""
    pack()
    from kinetograph.modules.sampling.schedules import trailing_levels

    process, n = noise_process(), len(context_bld)
    levels = trailing_levels(process.sigmas(), steps)
    noise = torch.randn(n, *LATENT_SHAPE, generator=torch.Generator().manual_seed(seed))
    x = process.noisy(torch.zeros_like(noise), noise, torch.tensor(levels[0]))
    both = torch.cat([context_bld, null_1ld.expand(n, -1, -1)])
    for here, after in zip(levels, levels[1:], strict=False):
        sigma = torch.tensor(here)
        scaled, timestep = process.network_input(x, sigma)
        given, free = model.velocity(torch.cat([scaled, scaled]), timestep.expand(2 * n), both).chunk(2)
        clean = process.denoised(x, free + guidance * (given - free), sigma)
        # the level that stands for an infinite one is noise alone: no sample is to be taken off it
        noise = scaled if here >= process.terminal else (x - clean) / sigma
        x = process.noisy(clean, noise, torch.tensor(after))
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
