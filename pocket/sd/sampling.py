"""Stills and clips from words with nothing but the parts: noise levels, epsilon, DDIM steps, and what was drawn."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..parts import pack
from ..svd.latents import CELL
from ..svd.measures import path_of
from ..svd.sampling import mean_colours

if TYPE_CHECKING:
    from ...modules.noise import DiscreteNoise

Kind = Literal["scaled_linear", "linear", "pixart"]
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (n, 4, h, w), timestep (n,), context (n, l, d)

CELLS = 8  # latent cells on a side
# first beta, last beta, and the way between them
BETAS: dict[Kind, tuple[float, float, Literal["scaled_linear", "linear"]]] = {
    "scaled_linear": (0.00085, 0.012, "scaled_linear"),
    "linear": (0.00085, 0.012, "linear"),
    "pixart": (0.0001, 0.02, "linear"),
}


def noise_process(kind: Kind) -> "DiscreteNoise":
    """SD1.5's noise ("scaled_linear"), AnimateDiff's ("linear"), or PixArt's."""
    pack()
    from kinetograph.modules.noise import DiscreteNoise

    return DiscreteNoise("epsilon", *BETAS[kind])


@torch.no_grad()
def sample(
    predict: Denoiser,
    told: Tensor,
    silent: Tensor,
    kind: Kind,
    frames: int = 1,
    steps: int = 20,
    guidance: float = 2.0,
    seed: int = 1,
) -> Tensor:
    """Scaled latents (b, f, 4, h, w) of contexts (b, l, d), a clip's frames side by side on the batch axis."""
    process = noise_process(kind)
    levels = process.sigmas().float()
    dice = torch.Generator().manual_seed(seed)
    x = torch.randn(len(told) * frames, 4, CELLS, CELLS, generator=dice) * levels[-1]
    contexts = [part.repeat_interleave(frames, 0) for part in (told, silent.expand_as(told))]
    times = torch.linspace(len(levels) - 1, 0, steps + 1).round().long()
    for here, after in zip(times, [*times[1:-1], None], strict=False):
        sigma, t = levels[here], here.expand(len(x))
        scaled = process.scaled(x, sigma)
        aware, free = (predict(scaled, t, context) for context in contexts)
        noise = free + guidance * (aware - free)
        clean = x - sigma * noise
        x = clean if after is None else clean + levels[after] * noise
    return x.unflatten(0, (-1, frames))


def paths_of(z_bfchw: Tensor) -> Tensor:
    """Centre of the shape in each frame (b, f, 2), x then y, in pixels."""
    return torch.stack([path_of(mean_colours(z), CELL) for z in z_bfchw])
