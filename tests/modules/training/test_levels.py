"""How noise levels are drawn: every timestep alike, ExVideo's grid, EDM's normal distribution."""

import math
import statistics

import pytest
import torch

from kinetograph.modules.noise import DiscreteNoise, EDMNoise
from kinetograph.modules.training import draws
from kinetograph.modules.training.levels import check_levels, draw_level, draw_timestep, karras_grid
from kinetograph.modules.training.recipe import Levels

SCALED = (0.00085, 0.012, "scaled_linear")
PROCESSES = {
    "motion modules": DiscreteNoise("epsilon", 0.00085, 0.012, "linear"),
    "SD": DiscreteNoise("epsilon", *SCALED),
    "SDXL beta": DiscreteNoise("epsilon", 0.00085, 0.02, "scaled_linear"),
    "PixArt": DiscreteNoise("epsilon", 1e-4, 0.02, "linear"),
    "CogVideoX-Fun": DiscreteNoise("v", *SCALED, zero_terminal_snr=True),
    "CogVideoX 2B": DiscreteNoise("v", *SCALED, snr_shift=3.0, zero_terminal_snr=True),
}
# alpha-bar at timesteps 0, 249, 499, 749, 999
ALPHA_BARS = {
    "motion modules": (0.99915, 0.570866156, 0.161812146, 0.022728803, 0.001578963),
    "SD": (0.99915, 0.675432414, 0.277669650, 0.056623492, 0.004660099),
    "SDXL beta": (0.99915, 0.617322501, 0.170145634, 0.014021353, 0.000230013),
    "PixArt": (0.9999, 0.524085374, 0.078587243, 0.003350550, 0.000040358),
}
SVD = EDMNoise(0.002, 700.0)


@pytest.mark.parametrize("name", ALPHA_BARS)
def test_levels_of_timesteps_are_the_published_ones(name):
    sigmas = PROCESSES[name].sigmas()[[0, 249, 499, 749, 999]]
    assert (1 / (sigmas**2 + 1)).tolist() == pytest.approx(ALPHA_BARS[name], abs=1e-9)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_level_in_fp32_still_tells_its_timestep(name):
    noise = PROCESSES[name]
    assert torch.equal(noise.timestep(noise.sigmas().float()), torch.arange(1000))


def test_every_timestep_is_drawn_alike():
    even = [draw_timestep(Levels(), (i + 0.5) / 1000) for i in range(1000)]
    assert sorted(even) == list(range(1000))
    late = [draw_timestep(Levels(least=600), (i + 0.5) / 800) for i in range(800)]
    assert sorted(late) == sorted([*range(600, 1000)] * 2)
    for settings in (Levels(), Levels(least=999), Levels(power=1.5, least=3), Levels(power=0.2)):
        ends = {draw_timestep(settings, u) for u in (0.0, 1e-12, 1 - 2**-24)}
        assert min(ends) == settings.least and max(ends) == 999


def test_a_power_prefers_high_noise_as_the_pocket_models_were_trained():
    u = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = ((1 - u**1.5) * 1000).long().clamp(0, 999).tolist()
    assert [draw_timestep(Levels(power=1.5), value) for value in u.tolist()] == wanted
    assert statistics.mean(wanted) > 560


def test_a_level_is_its_keys_and_of_the_process():
    noise = PROCESSES["CogVideoX-Fun"]
    sigmas = noise.sigmas().tolist()
    drawn = [sigmas.index(draw_level(noise, Levels(), index, 5, 0)) for index in range(3000)]
    assert drawn[:50] == [sigmas.index(draw_level(noise, Levels(), index, 5, 0)) for index in range(50)]
    assert drawn[7] == math.floor((1 - draws.uniform("level", 7, 5, 0)) * 1000)
    # 3000 draws of 1000: a tenth has 300, give or take 16; a mean 5.3
    tenths = [sum(t // 100 == tenth for t in drawn) for tenth in range(10)]
    assert all(abs(count - 300) < 70 for count in tenths)
    assert statistics.mean(drawn) == pytest.approx(499.5, abs=22)
    others = [sigmas.index(draw_level(noise, Levels(), index, 6, 0)) for index in range(100)]
    assert sum(a == b for a, b in zip(drawn, others, strict=False)) < 5


def test_exvideos_grid_is_the_published_one():
    grid = karras_grid(SVD)
    places = {0: 700, 250: 134.603998, 500: 15.5112667, 750: 0.6701332, 999: 0.002}
    assert len(grid) == 1000 and {i: grid[i] for i in places} == pytest.approx(places, rel=1e-7)
    places = [grid.index(draw_level(SVD, Levels("karras"), index, 0, 1)) for index in range(3000)]
    assert all(abs(sum(place // 100 == tenth for place in places) - 300) < 70 for tenth in range(10))


def test_logarithms_of_levels_are_normal_with_the_recipes_mean():
    drawn = sorted(draw_level(SVD, Levels("log_normal"), index, 0, 0) for index in range(4000))
    for share, wanted in ((0.05, 0.14), (0.5, 2.01), (0.95, 28.0)):
        assert math.log(drawn[int(4000 * share)]) == pytest.approx(math.log(wanted), abs=0.15)
    n = draws.normal((), "level", 3, 2, 1).item()
    assert draw_level(SVD, Levels("log_normal", mean=-3, spread=0.5), 3, 2, 1) == pytest.approx(
        math.exp(-3 + n / 2)
    )


WRONG = {
    "grid between timesteps": (PROCESSES["SD"], Levels("karras"), "choose .timesteps"),
    "levels between timesteps": (PROCESSES["CogVideoX-Fun"], Levels("log_normal"), "choose .timesteps"),
    "no timestep": (PROCESSES["SD"], Levels(least=1000), "levels.least is 1000: 0 to 999"),
    "negative timestep": (PROCESSES["SD"], Levels(least=-1), "levels.least is -1"),
    "power": (PROCESSES["SD"], Levels(power=0.0), "levels.power is 0.0: above 0"),
    "spread": (SVD, Levels("log_normal", spread=-1.0), "levels.spread is -1.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_levels_that_a_process_lacks_are_refused(name):
    noise, settings, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        check_levels(noise, settings)
    with pytest.raises(ValueError, match=words):
        draw_level(noise, settings, 0, 0, 0)
