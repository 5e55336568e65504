"""Schedules, samplers and guidance against diffusers' CogVideoX schedulers and published numbers."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.noise import DiscreteNoise
from kinetograph.modules.sampling import guidance, samplers, schedules

STEPS = 50
PUBLISHED = {  # alpha-bar at timesteps 0, 249, 499, 749
    3.0: [0.997454328, 0.390889741, 0.095969562, 0.010965891],
    1.0: [0.999150000, 0.654189007, 0.242359167, 0.033171483],
}


def cogvideox(shift):
    return DiscreteNoise("v", 0.00085, 0.012, "scaled_linear", snr_shift=shift, zero_terminal_snr=True)


def reference(name, shift, steps=STEPS):
    scheduler = getattr(peers.load_diffusers(), name)(
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
        clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("shift", PUBLISHED)
def test_alpha_bar(shift):
    alphas = cogvideox(shift).alphas_cumprod()
    assert alphas.dtype == torch.float64
    assert alphas[-1] == 0
    assert alphas[[0, 249, 499, 749]].tolist() == pytest.approx(PUBLISHED[shift], abs=1e-9)
    expected = reference("CogVideoXDDIMScheduler", shift).alphas_cumprod
    assert torch.allclose(alphas, expected.double(), rtol=1e-6, atol=0)


def test_linear_betas_without_a_shift():
    alphas = DiscreteNoise("epsilon", 1e-4, 0.02, "linear").alphas_cumprod()
    expected = peers.load_diffusers().DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    assert torch.allclose(alphas, expected.alphas_cumprod.double(), rtol=1e-4)
    assert alphas[-1] > 0


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 8, 25, 30, 50, 100, 1000])
def test_trailing_timesteps(steps):
    expected = reference("CogVideoXDDIMScheduler", 1.0, steps).timesteps.tolist()
    assert schedules.trailing_timesteps(steps) == expected
    assert expected[0] == 999


SVD_LEVELS = (0.002, 700.0)  # sigma_min, sigma_max


def continuous_ode(steps, denoise):
    """Levels of diffsynth's scheduler for SVD and ExVideo, from its file alone.

    In float64: at the low end its float32 powers lose a digit.
    """
    found = importlib.util.find_spec("diffsynth")
    if found is None or not found.submodule_search_locations:
        pytest.skip("diffsynth is not installed")
    path = Path(found.submodule_search_locations[0]) / "schedulers" / "continuous_ode.py"
    spec = importlib.util.spec_from_file_location("peer_continuous_ode", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        scheduler = module.ContinuousODEScheduler()
        scheduler.set_timesteps(steps, denoise)
    finally:
        torch.set_default_dtype(usual)
    return scheduler.sigmas


@pytest.mark.parametrize("steps", [2, 4, 25, 50])
def test_edm_levels_are_those_of_diffusers(steps):
    """The continuous Euler of SVD's pipeline, Karras' levels of its own bounds."""
    scheduler = peers.load_diffusers().EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=SVD_LEVELS[0],
        sigma_max=SVD_LEVELS[1],
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
    )
    scheduler.set_timesteps(steps)
    ours, theirs = schedules.edm_levels(steps, *SVD_LEVELS), scheduler.sigmas.double().tolist()
    assert ours[-1] == theirs[-1] == 0 and len(ours) == len(theirs) == steps + 1
    assert ours[:-1] == pytest.approx(theirs[:-1], rel=1e-6)
    quarter_logs = [math.log(sigma) / 4 for sigma in ours[:-1]]
    assert quarter_logs == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("denoise", [1.0, 0.5, 0.3, 0.01])
@pytest.mark.parametrize("steps", [2, 5, 25])
def test_edm_levels_below_full_strength_are_diffsynths(steps, denoise):
    ours, theirs = schedules.edm_levels(steps, *SVD_LEVELS, denoise), continuous_ode(steps, denoise)
    assert ours[-1] == 0
    assert ours[:-1] == pytest.approx(theirs.tolist(), rel=1e-9)


def test_half_strength_starts_at_exvideos_level():
    levels = schedules.edm_levels(25, *SVD_LEVELS, denoise=0.5)
    assert levels[0] == pytest.approx(((700 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    assert levels[0] == pytest.approx(15.59, abs=0.005)
    assert levels[-2] == pytest.approx(0.002) and levels[-1] == 0


def test_a_single_step_is_the_first_level():
    assert schedules.edm_levels(1, *SVD_LEVELS) == pytest.approx([700.0, 0.0])
    assert schedules.edm_levels(1, *SVD_LEVELS, denoise=0.5)[0] == pytest.approx(15.59, abs=0.005)


class SineModel:
    """v = sin(x): a network nobody needs to run, in both coordinates."""

    def __init__(self, shift, terminal=4096.0, dtype=torch.float64, steps=STEPS):
        self.alphas = cogvideox(shift).alphas_cumprod()
        self.terminal = terminal
        visited = self.alphas[schedules.trailing_timesteps(steps)]
        self.sigmas = [terminal, *((1 - visited[1:]) / visited[1:]).sqrt().tolist(), 0.0]
        self.noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
        self.seen = []

    def start(self):
        return self.noise * math.sqrt(1 + self.terminal**2)

    def denoise(self, x, sigma):
        alpha = 0.0 if sigma >= self.terminal else 1 / (1 + sigma**2)
        x_vp = x / math.sqrt(1 + sigma**2)
        return math.sqrt(alpha) * x_vp - math.sqrt(1 - alpha) * x_vp.sin()

    def run(self, sampler, draw):
        report = lambda step, x0, x: self.seen.append(step)  # noqa: E731
        return sampler(self.start(), samplers.Run(self.denoise, self.sigmas, self.terminal, draw, report))


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("shift", PUBLISHED)
@pytest.mark.parametrize("terminal", [4096.0, 1e8])
def test_ddim_equals_diffusers(shift, terminal):
    model, scheduler = SineModel(shift, terminal), reference("CogVideoXDDIMScheduler", shift)
    x = model.noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(x.sin(), timestep, x).prev_sample
    assert relative_error(model.run(samplers.sample_ddim, None), x) <= 1e-6
    assert model.seen == list(range(STEPS))


@pytest.mark.parametrize("shift", PUBLISHED)
@pytest.mark.parametrize("terminal", [4096.0, 1e8])
def test_dpm_equals_diffusers(shift, terminal):
    """diffusers draws twice on second-order steps and uses the second draw; here so does the test."""
    model, scheduler = SineModel(shift, terminal), reference("CogVideoXDPMScheduler", shift)
    generator = torch.Generator().manual_seed(7)
    x, old, back = model.noise, None, None
    for timestep in scheduler.timesteps:
        x, old = scheduler.step(x.sin(), old, timestep, back, x, generator=generator)
        back = timestep

    generator, draws = torch.Generator().manual_seed(7), []

    def draw():
        for _ in range(2 if draws else 1):
            draws.append(torch.randn(x.shape, generator=generator, dtype=torch.float64))
        return draws[-1]

    assert relative_error(model.run(samplers.sample_dpm, draw), x) <= 1e-6
    assert model.seen == list(range(STEPS))


def steps_to_the_next(scheduler):
    """The timesteps, each with diffusers' count of steps set so that the next one visited is where it goes.

    diffusers goes from t to t - 1000 // N, which is no timestep of its own where N does not divide 1000.
    """
    timesteps = [int(t) for t in scheduler.timesteps]
    for timestep, following in zip(timesteps, [*timesteps[1:], -1], strict=True):
        gap = timestep - following
        scheduler.num_inference_steps = 1000 // gap
        # the last goes below 0, wherever that is
        assert 1000 // scheduler.num_inference_steps == gap or following < 0
        yield torch.tensor(timestep)


# counts that do not divide 1000 and whose gaps diffusers can be told
ODD_COUNTS = [30, 37, 60]


@pytest.mark.parametrize("shift", PUBLISHED)
@pytest.mark.parametrize("steps", ODD_COUNTS)
def test_ddim_visits_the_timesteps_of_every_count(shift, steps):
    model, scheduler = SineModel(shift, steps=steps), reference("CogVideoXDDIMScheduler", shift, steps)
    x = model.noise
    for timestep in steps_to_the_next(scheduler):
        x = scheduler.step(x.sin(), timestep, x).prev_sample
    assert relative_error(model.run(samplers.sample_ddim, None), x) <= 1e-6
    assert model.seen == list(range(steps))


@pytest.mark.parametrize("shift", PUBLISHED)
@pytest.mark.parametrize("steps", ODD_COUNTS)
def test_dpm_visits_the_timesteps_of_every_count(shift, steps):
    model, scheduler = SineModel(shift, steps=steps), reference("CogVideoXDPMScheduler", shift, steps)
    generator = torch.Generator().manual_seed(7)
    x, old, back = model.noise, None, None
    for timestep in steps_to_the_next(scheduler):
        x, old = scheduler.step(x.sin(), old, timestep, back, x, generator=generator)
        back = timestep

    generator, draws = torch.Generator().manual_seed(7), []

    def draw():
        for _ in range(2 if draws else 1):
            draws.append(torch.randn(x.shape, generator=generator, dtype=torch.float64))
        return draws[-1]

    assert relative_error(model.run(samplers.sample_dpm, draw), x) <= 1e-6


@pytest.mark.parametrize("steps", [1, 3, 7, 13, 30, 37, 50, 999, 1000])
def test_trailing_levels_are_those_of_the_timesteps(steps):
    table = cogvideox(1.0).sigmas()
    levels = schedules.trailing_levels(table, steps)
    visited = [round(1000 * (1 - i / steps)) - 1 for i in range(steps)]
    assert levels == [*table[visited].tolist(), 0.0]
    assert levels[0] == table[-1] and levels == sorted(levels, reverse=True) and len(set(levels)) == steps + 1


def test_trailing_levels_below_full_strength_are_the_last_of_a_longer_run():
    table = cogvideox(3.0).sigmas()
    assert schedules.trailing_levels(table, 6, 0.2) == schedules.trailing_levels(table, 30)[-7:]
    with pytest.raises(ValueError, match="1000 noise levels .* 30 steps at denoise 0.01 take 3000"):
        schedules.trailing_levels(table, 30, 0.01)


def test_single_precision_holds_at_the_terminal_sigma():
    for sampler in samplers.SAMPLERS.values():
        single = SineModel(1.0, 1e8, torch.float32)
        double = SineModel(1.0, 1e8)
        double.noise = single.noise.double()
        draws = {
            dtype: samplers.seeded_draws(torch.empty(2, 3, 4, dtype=dtype), 3)
            for dtype in (torch.float32, torch.float64)
        }
        ours = single.run(sampler, draws[torch.float32]).double()
        assert relative_error(ours, double.run(sampler, draws[torch.float64])) <= 1e-4


def test_second_step_after_the_terminal_one_is_first_order():
    """No extrapolation from a step that began at infinity: its length in log sigma is infinite too."""
    model = SineModel(1.0)
    estimates = []
    model.sigmas = [4096.0, 10.0, 5.0, 0.0]

    def denoise(x, sigma):
        estimates.append(float(len(estimates)))
        return torch.full_like(x, estimates[-1])

    quiet = lambda *_: None  # noqa: E731
    zeros = lambda: torch.zeros_like(model.noise)  # noqa: E731
    samplers.sample_dpm(model.start(), samplers.Run(denoise, model.sigmas, 4096.0, zeros, quiet))
    assert estimates == [0.0, 1.0, 2.0]
    last = samplers.sample_dpm(
        model.start(), samplers.Run(denoise, [4096.0, 10.0, 5.0], 4096.0, zeros, quiet)
    )
    assert last.flatten()[0].item() == pytest.approx((1 - 0.25) * 4.0 + 0.25 * (1 - 0.0) * 3.0)


def test_seeded_draws_depend_on_the_seed_alone():
    like = torch.empty(3, dtype=torch.bfloat16)
    first, second, other = (samplers.seeded_draws(like, seed) for seed in (1, 1, 2))
    a = first()
    assert torch.equal(a, second())
    assert not torch.equal(a, first())
    assert not torch.equal(a, other())
    assert a.dtype == torch.bfloat16


def test_dynamic_cosine_follows_the_steps():
    rule = guidance.dynamic_cosine(6.0, STEPS)
    scales = [rule(step / STEPS, 13) for step in range(STEPS)]
    assert scales[0] == 1
    assert scales == sorted(scales)
    assert scales[40] == pytest.approx(1 + 6 * (1 - math.cos(math.pi * 0.8**5)) / 2)
    assert rule(1.0, 13) == pytest.approx(7)


def test_dynamic_cosine_by_timestep_is_diffusers():
    rule = guidance.dynamic_cosine(6.0, STEPS, clock="timestep")
    timesteps = reference("CogVideoXDPMScheduler", 1.0).timesteps.tolist()
    for step, t in enumerate(timesteps):
        expected = 1 + 6 * (1 - math.cos(math.pi * ((STEPS - t) / STEPS) ** 5)) / 2
        assert rule(step / STEPS, 13) == pytest.approx(expected)


def test_per_frame_linear():
    scale_t = guidance.per_frame_linear(1.0, 3.0)(0.5, 5)
    assert np.allclose(scale_t, [1, 1.5, 2, 2.5, 3])
