"""What networks are shown and asked for, against diffusers' schedulers and by hand."""

import math

import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.noise import DiscreteNoise, EDMNoise

SCALED, LINEAR = (0.00085, 0.012, "scaled_linear"), (0.0001, 0.02, "linear")
TIMESTEPS = torch.tensor([0, 17, 500, 998])


def draw(seed):
    return torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X0, NOISE, OUTPUT = draw(0), draw(1), draw(2)
PROCESSES = {
    "epsilon, scaled": DiscreteNoise("epsilon", *SCALED),
    "epsilon, linear": DiscreteNoise("epsilon", *LINEAR),
    "v, linear": DiscreteNoise("v", *LINEAR),
    "v, zero terminal SNR, shift 3": DiscreteNoise("v", *SCALED, snr_shift=3.0, zero_terminal_snr=True),
    "EDM": EDMNoise(0.002, 700.0),
}


def levels(noise, count=4):
    return noise.sigmas()[torch.linspace(0, 999, count).long()]


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("betas", [SCALED, LINEAR])
def test_noisy_latents_and_targets_are_those_of_diffusers(prediction, betas):
    start, end, kind = betas
    scheduler = peers.load_diffusers().DDPMScheduler(beta_start=start, beta_end=end, beta_schedule=kind)
    noise = DiscreteNoise(prediction, *betas)
    sigma = noise.sigmas()[TIMESTEPS]
    shown, told = noise.network_input(noise.noisy(X0, NOISE, sigma), sigma)
    assert torch.equal(told, TIMESTEPS)
    assert torch.allclose(shown, scheduler.add_noise(X0, NOISE, TIMESTEPS), rtol=1e-4, atol=1e-5)
    wanted = NOISE if prediction == "epsilon" else scheduler.get_velocity(X0, NOISE, TIMESTEPS)
    assert torch.allclose(noise.target(X0, NOISE, sigma), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_network_that_gives_its_target_gives_the_picture(name):
    noise = PROCESSES[name]
    sigma = levels(noise)
    x, target = noise.noisy(X0, NOISE, sigma), noise.target(X0, NOISE, sigma)
    assert torch.allclose(noise.denoised(x, target, sigma), X0, rtol=0, atol=1e-9)
    assert not torch.allclose(noise.denoised(x, OUTPUT, sigma), X0, atol=0.1)


def test_without_signal_v_is_minus_the_picture_and_the_network_sees_noise_alone():
    noise = PROCESSES["v, zero terminal SNR, shift 3"]
    sigma = noise.sigmas()[-1:]
    assert noise.alphas_cumprod()[-1] == 0 and float(sigma) == noise.terminal < math.inf
    x = noise.noisy(X0, NOISE, sigma)
    assert torch.allclose(noise.scaled(x, sigma), NOISE, rtol=0, atol=1e-12)
    assert torch.equal(noise.target(X0, NOISE, sigma), -X0)
    assert torch.equal(noise.denoised(x, OUTPUT, sigma), -OUTPUT)
    assert not torch.allclose(noise.denoised(X0, OUTPUT, noise.sigmas()[300:301]), -OUTPUT, atol=0.1)


def test_epsilon_is_not_v():
    """A schedule that names epsilon was once sampled as v."""
    epsilon, v = DiscreteNoise("epsilon", *LINEAR), DiscreteNoise("v", *LINEAR)
    sigma = levels(epsilon)
    ours = epsilon.denoised(X0, OUTPUT, sigma)
    assert torch.allclose(ours, X0 - OUTPUT * sigma.view(-1, 1, 1, 1), rtol=0, atol=1e-12)
    assert not torch.allclose(ours, v.denoised(X0, OUTPUT, sigma), atol=0.1)


def test_epsilon_without_any_signal_is_refused():
    with pytest.raises(ValueError, match="Zero terminal SNR needs v"):
        DiscreteNoise("epsilon", *SCALED, zero_terminal_snr=True)


def test_edm_levels_are_even_in_their_logarithm_and_told_as_a_quarter_of_it():
    noise = EDMNoise(0.002, 700.0)
    table = noise.sigmas()
    assert table[0].item() == pytest.approx(0.002) and table[-1].item() == pytest.approx(700.0)
    steps = table.log().diff()
    assert torch.allclose(steps, steps[0].expand_as(steps), rtol=1e-9)
    assert torch.equal(noise.timestep(table), 0.25 * table.log())


@pytest.mark.parametrize("count", [1, 4])
def test_a_level_for_all_or_one_a_row(count):
    noise = PROCESSES["v, linear"]
    sigma = noise.sigmas()[TIMESTEPS][:1].expand(count)
    assert torch.equal(noise.scaled(X0, sigma), X0 / (sigma[0] ** 2 + 1) ** 0.5)
