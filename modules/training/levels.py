"""How noisy a clip is shown to the network: one level for all of it."""

import math
from functools import cache

from ..noise import NUM_TIMESTEPS, EDMNoise, Noise
from ..sampling.schedules import edm_levels
from .draws import normal, uniform
from .recipe import Levels


def draw_level(noise: Noise, levels: Levels, *key: int) -> float:
    """The level (sigma) of a clip; the numbers of `key` (sample, visit, seed) decide it. ValueError as `check_levels`."""
    check_levels(noise, levels)
    if levels.kind == "log_normal":
        return math.exp(levels.mean + levels.spread * normal((), "level", *key).item())
    place = uniform("level", *key)
    if levels.kind == "karras":
        return karras_grid(noise)[place_of(place, NUM_TIMESTEPS)]
    return _levels_of(noise)[draw_timestep(levels, place)]


def draw_timestep(levels: Levels, u: float) -> int:
    """The timestep of a uniform number: evenly over `least` to 999, or with more of the high ones."""
    span = NUM_TIMESTEPS - levels.least
    return min(NUM_TIMESTEPS - 1, math.floor(levels.least + (1 - u**levels.power) * span))


def place_of(u: float, count: int) -> int:
    """One of so many places, all alike."""
    return min(count - 1, math.floor(u * count))


def check_levels(noise: Noise, levels: Levels) -> None:
    """ValueError for levels that the noise process does not have."""
    if levels.kind != "timesteps" and not isinstance(noise, EDMNoise):
        raise ValueError(
            f'levels.kind is "{levels.kind}", but this model knows {NUM_TIMESTEPS} timesteps and no levels between '
            'them: choose "timesteps".'
        )
    if not 0 <= levels.least < NUM_TIMESTEPS:
        raise ValueError(f"levels.least is {levels.least}: 0 to {NUM_TIMESTEPS - 1} are timesteps.")
    if levels.power <= 0:
        raise ValueError(f"levels.power is {levels.power}: above 0, and 1 for all timesteps alike.")
    if levels.spread < 0:
        raise ValueError(f"levels.spread is {levels.spread}: 0 or more.")


@cache
def karras_grid(noise: Noise) -> list[float]:
    """1000 levels from the largest to the smallest, even in sigma^(1/7), as ExVideo was trained on."""
    assert isinstance(noise, EDMNoise)
    return edm_levels(NUM_TIMESTEPS, noise.sigma_min, noise.sigma_max)[:-1]


@cache
def _levels_of(noise: Noise) -> list[float]:
    return noise.sigmas().tolist()
