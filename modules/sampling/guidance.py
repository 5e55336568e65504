"""How strongly the prompt pulls, over the run and over the frames of a clip.

A rule maps (share of the steps done, latent frames) to one guidance scale, or to one for every frame.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[float, int], "float | Tensor"]


def timestep_clock(progress: float, steps: int) -> float:
    """u = (N - t) / N with timesteps t up to 999, as diffusers' CogVideoXPipeline counts: far outside 0..1."""
    timestep = round(1000 * (1 - progress)) - 1
    return (steps - timestep) / steps


def dynamic_cosine(cfg: float, steps: int = 0, clock: str = "step") -> Rule:
    """1 + cfg * (1 - cos(pi * u^5)) / 2: no guidance at first, 1 + cfg at the end (CogVideoX 5B and 1.5).

    `clock` "step" is u = step / N, the share of the steps done, as CogVideoX's own code counts
    (zai-org/CogVideo, sat); "timestep" is the reading of diffusers, erratic and kept for parity.
    """

    def scale(progress: float, _: int) -> float:
        u = progress if clock == "step" else timestep_clock(progress, steps)
        return 1 + cfg * (1 - math.cos(math.pi * u**5)) / 2

    return scale


CLOCKS = ("step", "timestep")


def per_frame_linear(min_cfg: float, max_cfg: float) -> Rule:
    """A scale that rises from the first frame to the last, as Stable Video Diffusion's (arXiv 2311.15127)."""
    return lambda _, frames: torch.linspace(min_cfg, max_cfg, frames)
