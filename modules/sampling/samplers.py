"""CogVideoX's two samplers, exact at a terminal signal-to-noise ratio of zero.

Both work on x / sqrt(alpha_bar) = x0 + sigma * noise. Where no signal is left sigma is infinite: a finite
`terminal` stands in for it, the state there is noise alone, and no formula subtracts large numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]  # (x, sigma) -> x0
Draw = Callable[[], Tensor]  # standard normal noise, shaped like x
Report = Callable[[int, Tensor, Tensor], None]  # (step, x0, x)


@dataclass(frozen=True)
class Run:
    """What a sampler is given besides the latents."""

    denoise: Denoise
    sigmas: list[float]  # falling; the last is 0
    terminal: float  # a sigma from here on stands for infinity
    draw: Draw
    report: Report


def sample_ddim(x: Tensor, run: Run) -> Tensor:
    """DDIM without noise (Song et al., arXiv 2010.02502, eq. 12), CogVideoX 2B's sampler."""
    for step, (sigma, following) in enumerate(zip(run.sigmas, run.sigmas[1:], strict=False)):
        x0 = run.denoise(x, sigma)
        run.report(step, x0, x)
        x = x0 + following * noise_in(x, x0, sigma, run.terminal)
    return x


def noise_in(x: Tensor, x0: Tensor, sigma: float, terminal: float) -> Tensor:
    """The noise that x holds; at the terminal sigma x is that noise, scaled by sqrt(1 + sigma^2)."""
    return x / math.sqrt(1 + sigma**2) if sigma >= terminal else (x - x0) / sigma


def sample_dpm(x: Tensor, run: Run) -> Tensor:
    """Second-order multistep SDE-DPM-Solver++ (Lu et al., arXiv 2211.01095), as CogVideoX 5B uses it.

    First order on the first and the last step. On second-order steps CogVideoX's code draws noise twice and
    uses the second draw; here one is drawn, the distribution is the same.
    """
    previous, h_previous = None, 0.0
    for step, (sigma, following) in enumerate(zip(run.sigmas, run.sigmas[1:], strict=False)):
        x0 = run.denoise(x, sigma)
        run.report(step, x0, x)
        if following == 0:
            return x0
        at_terminal = sigma >= run.terminal
        h = math.inf if at_terminal else math.log(sigma / following)
        estimate = x0
        if previous is not None and math.isfinite(h_previous):
            estimate = x0 + (x0 - previous) * (h / h_previous / 2)
        shrink = math.exp(-h) * following / sigma if not at_terminal else 0.0
        x = (
            shrink * x
            - math.expm1(-2 * h) * estimate
            + following * math.sqrt(-math.expm1(-2 * h)) * run.draw()
        )
        previous, h_previous = x0, h
    return x


SAMPLERS = {"cogvideox_ddim": sample_ddim, "cogvideox_dpm": sample_dpm}


def seeded_draws(like: Tensor, seed: int) -> Draw:
    """Noise from one CPU generator, so that a seed gives the same clip on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)
