"""What a network is shown of a noisy latent, and what it is asked for: epsilon, v, and EDM's scalings.

Everything is told in x = x0 + sigma * noise, the coordinates of k-diffusion (Karras et al., arXiv 2206.00364) and of
the host. A variance-preserving model sees sqrt(alpha_bar) * x, and sigma is sqrt((1 - alpha_bar) / alpha_bar). The
host wing, the trainer, `pocket/` and the tests all compute with what stands here.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v"]

NUM_TIMESTEPS = 1000
# With no signal left sigma is infinite; this stand-in for alpha_bar keeps it finite in fp32. diffusers' Euler uses the
# same one (EulerDiscreteScheduler, rescaled betas).
TERMINAL_ALPHA_BAR = 2.0**-24
# Levels this close to the largest one are the terminal one, whatever rounding did to them.
NEAR_TERMINAL = 1 - 1e-6


class Noise:
    """A noise process: its levels, and the way between (x0, noise) and what the network takes and gives.

    `sigma` is a tensor of one level, or of one level a row of x.
    """

    prediction: Prediction
    # the level from which on nothing of x0 is left, infinite where there is always something
    terminal: float = math.inf

    def sigmas(self) -> Tensor:
        """The levels, rising, float64; a discrete process has one for each timestep."""
        raise NotImplementedError

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the network is told of a level."""
        raise NotImplementedError

    def network_input(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(x at unit variance, timestep) for the network."""
        return self.scaled(x, sigma), self.timestep(sigma)

    def scaled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x at unit variance, whatever its level."""
        return x / (_beside(sigma, x) ** 2 + 1) ** 0.5

    def noisy(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x at a level; at the terminal one it is noise alone, so that `scaled` gives back the noise."""
        level = _beside(sigma, x0)
        return torch.where(self._is_terminal(level), noise * (level**2 + 1) ** 0.5, x0 + level * noise)

    def denoised(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """x0 from the network's output; at the terminal level v is exactly -x0, whatever stands in for sigma."""
        level = _beside(sigma, output)
        if self.prediction == "epsilon":
            return x - output * level
        x0 = x / (level**2 + 1) - output * level / (level**2 + 1) ** 0.5
        return x0 if self.terminal == math.inf else torch.where(self._is_terminal(level), -output, x0)

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What the network is trained to give: the noise, or v (Salimans and Ho, arXiv 2202.00512, appendix D)."""
        if self.prediction == "epsilon":
            return noise
        level = _beside(sigma, x0)
        v = (noise - level * x0) / (level**2 + 1) ** 0.5
        return torch.where(self._is_terminal(level), -x0, v)

    def _is_terminal(self, level: Tensor) -> Tensor:
        return level >= self.terminal * NEAR_TERMINAL


def _beside(sigma: Tensor, x: Tensor) -> Tensor:
    """Levels shaped to broadcast over x: one for all, or one a row."""
    return sigma.view(()) if sigma.numel() == 1 else sigma.view(-1, *[1] * (x.ndim - 1))


class TableNoise(Noise):
    """A process with a level for each of its timesteps; the network is told the nearest timestep."""

    def timestep(self, sigma: Tensor) -> Tensor:
        """The index of the level nearest in log sigma."""
        distance = sigma.log().to(self._log_sigmas.device) - self._log_sigmas[:, None]
        return distance.abs().argmin(dim=0).view(sigma.shape).to(sigma.device)

    @cached_property
    def _log_sigmas(self) -> Tensor:
        return self.sigmas().log().float()


@dataclass(frozen=True)
class DiscreteNoise(TableNoise):
    """The discrete schedule that a model was trained with, over 1000 timesteps.

    betas run linearly in sqrt(beta) ("scaled_linear") or in beta ("linear"); `snr_shift` and `zero_terminal_snr` follow
    CogVideoX (arXiv 2408.06072, sec. 3.3). Raises ValueError for an epsilon without any signal: it tells nothing of x0.
    """

    prediction: Prediction
    beta_start: float
    beta_end: float
    kind: Literal["scaled_linear", "linear"]
    snr_shift: float = 1.0
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.prediction == "epsilon" and self.zero_terminal_snr:
            raise ValueError(
                "Zero terminal SNR needs v: epsilon tells nothing of x0 where there is no signal."
            )

    @cached_property
    def terminal(self) -> float:  # type: ignore[override]
        """The stand-in for an infinite sigma, with zero terminal SNR."""
        return float(self.sigmas()[-1]) if self.zero_terminal_snr else math.inf

    def alphas_cumprod(self) -> Tensor:
        """alpha-bar at timesteps 0 to 999, float64; the last is exactly 0 with zero terminal SNR."""
        start, end = self.beta_start, self.beta_end
        if self.kind == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
        else:
            betas = torch.linspace(start, end, NUM_TIMESTEPS, dtype=torch.float64)
        alphas = shift_snr((1 - betas).cumprod(0), self.snr_shift)
        return zero_terminal_snr(alphas) if self.zero_terminal_snr else alphas

    def sigmas(self) -> Tensor:
        """The level of each timestep; a finite one stands for the infinite one of zero terminal SNR."""
        alphas = self.alphas_cumprod().clamp(min=TERMINAL_ALPHA_BAR)
        return ((1 - alphas) / alphas).sqrt()


@dataclass(frozen=True, eq=False)
class ReadNoise(TableNoise):
    """The discrete schedule of a model that somebody else loaded, read off its table of levels (timesteps,)."""

    prediction: Prediction
    table: Tensor

    def sigmas(self) -> Tensor:
        """The level of each timestep."""
        return self.table.double()


@dataclass(frozen=True)
class EDMNoise(Noise):
    """Continuous levels and v-prediction: the network sees x / sqrt(sigma^2 + 1) and is told ln(sigma) / 4.

    Karras et al. (arXiv 2206.00364), table 1 with sigma_data 1.
    """

    sigma_min: float
    sigma_max: float
    prediction: Prediction = "v"

    def sigmas(self) -> Tensor:
        """1000 levels, evenly in log sigma: the host's schedulers choose among them."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return torch.linspace(low, high, NUM_TIMESTEPS, dtype=torch.float64).exp()

    def timestep(self, sigma: Tensor) -> Tensor:
        """A quarter of the logarithm of the level."""
        return 0.25 * sigma.log()


def shift_snr(alphas: Tensor, shift: float) -> Tensor:
    """Divide the signal-to-noise ratio by `shift` at every timestep (CogVideoX, arXiv 2408.06072, sec. 3.3)."""
    return alphas / (shift + (1 - shift) * alphas)


def zero_terminal_snr(alphas: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar) so that the last is 0 and the first stays (Lin et al., arXiv 2305.08891)."""
    root = alphas.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
