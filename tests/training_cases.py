"""Clips at their noise levels, for tests of losses."""

import torch

from kinetograph.modules.training.subject import Noisy


def wave(count, speed, phase=0.0, of=torch.sin):
    return of(speed * torch.arange(count, dtype=torch.float64) + phase)


def clips_at(noise, sigma, x0, epsilon, time_axis=2):
    sigma = torch.as_tensor(sigma, dtype=x0.dtype).reshape(-1)
    return Noisy(x0, epsilon, sigma, noise.noisy(x0, epsilon, sigma), time_axis)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
