"""The noise levels of a run: which of a model's levels its steps visit."""

from torch import Tensor

# levels that AnimateLCM-SVD was distilled at (G-U-N/AnimateLCM, animatelcm_svd/app.py)
ANIMATELCM_SVD_LEVELS = 40
# the timesteps of TDM's four-step LoRA for CogVideoX 2B (Luo-Yihong/TDM, README)
TDM_TIMESTEPS = (999, 856, 665, 399)


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


def lcm_timesteps(steps: int, original: int, denoise: float = 1.0, num_timesteps: int = 1000) -> list[int]:
    """`steps` of the `original` timesteps that a latent consistency model was distilled at, falling.

    Luo et al., arXiv 2310.04378, sec. 4.3; rounded as diffusers' LCMScheduler does. Below 1, `denoise` leaves the
    upper ones out. Raises ValueError for more steps than there are timesteps.
    """
    skip = num_timesteps // original
    distilled = [skip * i - 1 for i in range(int(original * denoise), 0, -1)]
    _check_steps(steps, len(distilled), f"A model distilled at {original} timesteps", denoise)
    return [distilled[i * len(distilled) // steps] for i in range(steps)]


def lcm_levels(table: Tensor, steps: int, denoise: float = 1.0, *, original: int) -> list[float]:
    """The levels of `lcm_timesteps` in a table of rising levels, and a last one of 0. Raises ValueError as they do."""
    return [*table[lcm_timesteps(steps, original, denoise, len(table))].tolist(), 0.0]


def animatelcm_svd_levels(
    steps: int, sigma_min: float, sigma_max: float, denoise: float = 1.0
) -> list[float]:
    """`steps` of the 40 levels that AnimateLCM-SVD was distilled at, evenly from the first one, and a last one of 0.

    Wang et al., arXiv 2402.00769; G-U-N/AnimateLCM, animatelcm_scheduler.py. Below 1, `denoise` leaves the upper
    levels out. Raises ValueError for more steps than there are levels.
    """
    distilled = edm_levels(ANIMATELCM_SVD_LEVELS, sigma_min, sigma_max)[:-1]
    distilled = distilled[len(distilled) - int(len(distilled) * denoise) :]
    _check_steps(steps, len(distilled), f"A model distilled at {ANIMATELCM_SVD_LEVELS} levels", denoise)
    return [*distilled[:: len(distilled) // steps][:steps], 0.0]


def tdm_levels(table: Tensor, steps: int, denoise: float = 1.0) -> list[float]:
    """The levels of the four timesteps of TDM's generator (arXiv 2503.06674) in a table, and a last one of 0.

    Raises ValueError for another number of steps, and for a part of them.
    """
    if steps != len(TDM_TIMESTEPS) or denoise < 1:
        visited = ", ".join(map(str, TDM_TIMESTEPS))
        raise ValueError(
            f"tdm is for {len(TDM_TIMESTEPS)} steps at denoise 1, the timesteps {visited}: got {steps} at "
            f"{denoise:g}. Set them so, or choose trailing, which is less sharp."
        )
    return [*table[list(TDM_TIMESTEPS)].tolist(), 0.0]


def _check_steps(steps: int, left: int, model: str, denoise: float) -> None:
    """ValueError for more steps than a distilled model has levels left."""
    if steps > left:
        raise ValueError(
            f"{model} takes up to {left} steps at denoise {denoise:g}: got {steps}. Lower steps, or raise denoise."
        )
