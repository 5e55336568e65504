"""Discrete noise schedules in float64: alpha-bar, its SNR shift, and a terminal SNR of zero."""

from typing import Literal, Protocol

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000


class Schedule(Protocol):
    """The fields of a family's NoiseSchedule record that shape alpha-bar."""

    @property
    def beta_start(self) -> float: ...
    @property
    def beta_end(self) -> float: ...
    @property
    def kind(self) -> Literal["scaled_linear", "linear"]: ...
    @property
    def snr_shift(self) -> float: ...
    @property
    def zero_terminal_snr(self) -> bool: ...


def alphas_cumprod(schedule: Schedule) -> Tensor:
    """alpha-bar at timesteps 0 to 999, float64; the last is exactly 0 with zero terminal SNR."""
    start, end = schedule.beta_start, schedule.beta_end
    if schedule.kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(start, end, NUM_TIMESTEPS, dtype=torch.float64)
    alphas = shift_snr((1 - betas).cumprod(0), schedule.snr_shift)
    return zero_terminal_snr(alphas) if schedule.zero_terminal_snr else alphas


def shift_snr(alphas: Tensor, shift: float) -> Tensor:
    """Divide the signal-to-noise ratio by `shift` at every timestep (CogVideoX, arXiv 2408.06072, sec. 3.3)."""
    return alphas / (shift + (1 - shift) * alphas)


def zero_terminal_snr(alphas: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar) so that the last is 0 and the first stays (Lin et al., arXiv 2305.08891)."""
    root = alphas.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def trailing_timesteps(steps: int) -> list[int]:
    """`steps` timesteps from 999 down, evenly, the last one above 0 (Lin et al., arXiv 2305.08891, table 2)."""
    return [round(NUM_TIMESTEPS - i * NUM_TIMESTEPS / steps) - 1 for i in range(steps)]


def edm_levels(
    steps: int, sigma_min: float, sigma_max: float, denoise: float = 1.0, rho: float = 7.0
) -> list[float]:
    """`steps` noise levels, even in sigma^(1 / rho), and a last one of 0 (Karras et al., arXiv 2206.00364, eq. 5).

    Below 1, `denoise` starts the ramp at 1 - denoise of its way, as ExVideo's second pass does: 0.5 of SVD's
    0.002 to 700 is 15.6 (modelscope/DiffSynth-Studio 1.1.9, diffsynth/schedulers/continuous_ode.py). One step
    is the first level alone.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    start = 1 - denoise
    ramp = [start + (1 - start) * i / max(1, steps - 1) for i in range(steps)]
    return [(high + place * (low - high)) ** rho for place in ramp] + [0.0]
