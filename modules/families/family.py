"""The Family record: everything a stage or the host needs to know of a family, and nothing that acts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..grid import LatentGrid
from ..weights.part import Kind, Part, Shapes

__all__ = ["Family", "Kind", "NoiseSchedule", "Part", "Shapes"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The discrete diffusion schedule a family was trained with.

    betas run linearly in sqrt(beta) ("scaled_linear") or in beta ("linear") over 1000 steps;
    `snr_shift` and `zero_terminal_snr` follow CogVideoX (arXiv 2408.06072, sec. 3.3).
    """

    prediction: Literal["epsilon", "v"]
    beta_start: float
    beta_end: float
    kind: Literal["scaled_linear", "linear"]
    snr_shift: float = 1.0
    zero_terminal_snr: bool = False


@dataclass(frozen=True)
class Family:
    """One video-diffusion system. The functions take the diffusion model's config."""

    id: str
    label: str
    parts: Mapping[Kind, Part]
    grid: LatentGrid
    schedule: Callable[[Any], NoiseSchedule]
    latent_scale: Callable[[Any], float]
    memory_factor: Callable[[Any], float]  # activation memory of a step, in units of the host's estimate
