"""The bound that trains a variance between two: Nichol and Dhariwal (arXiv 2102.09672), sec. 3.1.

PixArt and EasyAnimate give eight channels: the noise, and where in between the logarithm of the variance lies. The bound
trains the variance alone: what it says of the noise is detached.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..noise import Noise, TableNoise
from .subject import Noisy

# half the width of a step between 256 values of -1..1
HALF_STEP = 1 / 255
# as far as values have two neighbours
INNER = 0.999
LEAST_MASS = 1e-12
# of the tanh that stands in for the normal distribution (Page, 1977)
PAGE_SCALE, PAGE_CUBIC = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Posterior:
    """q(x_{t-1} | x_t, x0) of all timesteps, float64 (1000,)."""

    # the mean is share * x0 + a part of x_t
    share: Tensor
    log_variance: Tensor
    log_beta: Tensor


def bits(epsilon: Tensor, spread: Tensor, noisy: Noisy, noise: Noise) -> Tensor:
    """The bound (b,) of each clip in bits a value.

    `epsilon` and `spread` (b, ...) are the halves of the output; a spread of -1 is the posterior's own variance, one of 1
    is beta. The variance's gradient alone comes back.
    """
    table, t = posterior(noise), noise.timestep(noisy.sigma).cpu()
    share, log_q, log_beta = (
        _beside(part[t], spread) for part in (table.share, table.log_variance, table.log_beta)
    )
    log_p = 0.5 * (1 + spread) * log_beta + 0.5 * (1 - spread) * log_q
    difference = noisy.x0 - noise.denoised(noisy.x, epsilon.detach(), noisy.sigma)
    # both means have the same part of x_t
    kl = 0.5 * (log_p - log_q - 1 + (log_q - log_p).exp() + (share * difference).square() * (-log_p).exp())
    first = _beside((t == 0).double(), spread) > 0
    # at the last step of sampling the mean is the clip itself
    nats = torch.where(first, -_log_mass(noisy.x0, difference, 0.5 * log_p), kl)
    return nats.flatten(1).mean(1) / math.log(2)


@cache
def posterior(noise: Noise) -> Posterior:
    """The posterior of a process of 1000 timesteps (Nichol and Dhariwal, eq. 10 and 11)."""
    alphas = 1 / (noise.sigmas() ** 2 + 1)
    before = torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])
    betas = 1 - alphas / before
    variance = betas * (1 - before) / (1 - alphas)
    # the first is 0 and has no logarithm
    variance = torch.cat([variance[1:2], variance[1:]])
    return Posterior(betas * before.sqrt() / (1 - alphas), variance.log(), betas.log())


def check_timesteps(noise: Noise) -> None:
    """ValueError for a process without timesteps."""
    if not isinstance(noise, TableNoise):
        raise ValueError(
            "A learned range and x0_below_250 need a model of 1000 timesteps, this one has none."
        )


def _log_mass(x0: Tensor, difference: Tensor, log_scale: Tensor) -> Tensor:
    """ln of what a normal distribution has around each x0, which lies `difference` from its mean; open at both ends."""
    narrow = (-log_scale).exp()
    above, below = (normal_cdf(narrow * (difference + step)) for step in (HALF_STEP, -HALF_STEP))
    mass = torch.where(x0 < -INNER, above, torch.where(x0 > INNER, 1 - below, above - below))
    return mass.clamp(min=LEAST_MASS).log()


def normal_cdf(z: Tensor) -> Tensor:
    """The normal distribution up to z, nearly."""
    return 0.5 * (1 + (PAGE_SCALE * (z + PAGE_CUBIC * z**3)).tanh())


def _beside(numbers: Tensor, x: Tensor) -> Tensor:
    """Numbers (b,) shaped to broadcast over x (b, ...), on its device."""
    return numbers.to(x).view(-1, *[1] * (x.ndim - 1))
