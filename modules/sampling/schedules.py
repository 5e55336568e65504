"""The noise levels of a run: which of a model's levels its steps visit."""

from torch import Tensor


def trailing_timesteps(steps: int, num_timesteps: int = 1000) -> list[int]:
    """`steps` timesteps from the last down, evenly, the last one above 0 (Lin et al., arXiv 2305.08891, table 2)."""
    return [round(num_timesteps - i * num_timesteps / steps) - 1 for i in range(steps)]


def trailing_levels(table: Tensor, steps: int, denoise: float = 1.0) -> list[float]:
    """Noise levels at `steps` trailing timesteps of a table of levels, rising, and a last one of 0.

    Below 1, `denoise` takes the last `steps` of so many that they are this share of a whole run, as the host's
    KSampler does. Raises ValueError for more steps than the table has levels.
    """
    whole = steps if denoise > 0.9999 else int(steps / denoise)
    if whole > len(table):
        raise ValueError(
            f"trailing has {len(table)} noise levels to choose from: {steps} steps at denoise {denoise:g} take {whole}. "
            "Lower steps, or raise denoise."
        )
    visited = trailing_timesteps(whole, len(table))[-steps:]
    return [*table[visited].tolist(), 0.0]


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
