"""Clips sampled while a network is trained: plain Euler steps, to see what it has learned so far."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..noise import EDMNoise
from ..sampling.schedules import edm_levels, trailing_levels
from . import batch
from .draws import normal
from .recipe import Evaluation
from .subject import Example, Subject


@torch.no_grad()
def sample(
    subject: Subject,
    example: Example,
    empty: Tensor | None,
    wish: Evaluation,
    seed: int,
    device: Any,
    dtype: torch.dtype,
) -> Tensor:
    """Unscaled latents of a clip told what `example` tells, shaped as its own; its latents are not looked at.

    Euler's method in x0 + sigma * noise (Karras et al., arXiv 2206.00364, algorithm 1), guided by classifier-free guidance
    where there is an empty caption.
    """
    sigmas = levels_of(subject, wish.steps)
    told = [_told(subject, example, device, dtype)]
    if empty is not None and wish.cfg != 1:
        told.append(_told(subject, replace(example, context=empty), device, dtype))
    x = normal((1, *example.mean.shape), "sample", example.index, seed).to(device)
    x = subject.noise.noisy(torch.zeros_like(x), x, torch.tensor([sigmas[0]], device=device))
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        x0s = [_denoised(subject, x, sigma, arguments, dtype) for arguments in told]
        x0 = x0s[0] if len(x0s) == 1 else x0s[1] + wish.cfg * (x0s[0] - x0s[1])
        x = x0 + (x - x0) * (following / sigma)
    return x[0] / subject.scale


def levels_of(subject: Subject, steps: int) -> Sequence[float]:
    """The levels of a run, falling, and a last one of 0."""
    if isinstance(subject.noise, EDMNoise):
        return edm_levels(steps, subject.noise.sigma_min, subject.noise.sigma_max)
    return trailing_levels(subject.noise.sigmas(), steps)


def _told(subject: Subject, example: Example, device: Any, dtype: torch.dtype) -> Any:
    return batch.tell(subject, [example], device, dtype)


def _denoised(subject: Subject, x: Tensor, sigma: float, arguments: Any, dtype: torch.dtype) -> Tensor:
    level = torch.tensor([sigma], device=x.device)
    output = batch.output_of(subject, x, level, arguments, dtype)
    return subject.noise.denoised(x, output, level)
