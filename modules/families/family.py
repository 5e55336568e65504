"""The Family record: everything a stage or the host needs to know of a family, and nothing that acts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ..grid import LatentGrid
from ..weights.part import Kind, Part, Shapes

__all__ = ["EDMSchedule", "Family", "Kind", "NoiseSchedule", "Part", "Request", "Shapes"]


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
class EDMSchedule:
    """Continuous noise levels and v-prediction: the network sees x / sqrt(sigma^2 + 1) and ln(sigma) / 4.

    Karras et al. (arXiv 2206.00364), table 1 with sigma_data 1.
    """

    sigma_min: float
    sigma_max: float


@dataclass(frozen=True)
class Request:
    """What a sampler hands a model beside the noisy latents: the conditioning, as nodes attached it."""

    noise_shape: tuple[int, ...]  # of the latents to sample, before CFG doubles the batch
    context: Tensor | None = None  # text or image features (b, l, d)
    image_latents: Tensor | None = None  # as the VAE gave them, unscaled
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else was attached, by name


@dataclass(frozen=True)
class Family:
    """One video-diffusion system. The functions take the diffusion model's config."""

    id: str
    label: str
    parts: Mapping[Kind, Part]
    grid: LatentGrid
    schedule: Callable[[Any], NoiseSchedule | EDMSchedule]
    latent_scale: Callable[[Any], float]
    memory_factor: Callable[[Any], float]  # activation memory of a step, in units of the host's estimate
    # Named inputs of the network for a request: tensors to be repeated to the batch, "c_concat" for the
    # channel axis, whole numbers as they are. ValueError says what conditioning is lacking or does not fit.
    conditions: Callable[[Any, Request], Mapping[str, Tensor | int]]
    patch_frames: Callable[[Any], int] = lambda config: 1  # latent frames per token
