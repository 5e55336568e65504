"""The Family record: everything a stage or the host needs to know of a family, and nothing that acts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..grid import LatentGrid
from ..weights.keymap import KeyMap

Shapes = Mapping[str, tuple[int, ...]]
Kind = Literal["diffusion_model", "vae", "text_encoder"]


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
class Part:
    """One checkpoint file's worth of a family: how to know it, rename it, size it and build it."""

    kind: Kind
    signature: tuple[str, ...]  # keys, in our naming, that only this part has together
    dialects: Mapping[str, KeyMap]  # dialect name -> its keys to ours, most specific first
    read_config: Callable[[Shapes, Mapping[str, Any] | None], Any]  # shapes in our naming, config.json
    variant: Callable[[Any], str]  # config -> published name
    build: type[nn.Module] | None  # build(config, ops=, attention=, dtype=, device=); None: the host builds it
    folder: str  # the model folder a user puts the file into
    node: str  # id of the node that loads it


@dataclass(frozen=True)
class Family:
    """One video-diffusion system. The functions take the diffusion model's config."""

    id: str
    label: str
    parts: Mapping[Kind, Part]
    grid: Callable[[Any], LatentGrid]
    schedule: Callable[[Any], NoiseSchedule]
    latent_scale: Callable[[Any], float]
