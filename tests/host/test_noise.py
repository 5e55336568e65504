"""`modules/noise.py` is the host's own model sampling, kind by kind."""

import pytest
import torch

from kinetograph.modules.noise import DiscreteNoise, EDMNoise, ReadNoise
from kinetograph.tests.host import svd_parts
from kinetograph.tests.host.test_svd_adoption import image_model
from kinetograph.tests.host.workbench import relative

SCALED, LINEAR = (0.00085, 0.012, "scaled_linear"), (0.0001, 0.02, "linear")
# the host's words for the two ways that betas run
WORDS = {"scaled_linear": "linear", "linear": "sqrt_linear"}
KINDS = {
    "epsilon scaled": (DiscreteNoise("epsilon", *SCALED), "EPS"),
    "epsilon linear": (DiscreteNoise("epsilon", *LINEAR), "EPS"),
    "v linear": (DiscreteNoise("v", *LINEAR), "V_PREDICTION"),
    "v zero terminal SNR": (DiscreteNoise("v", *SCALED, zero_terminal_snr=True), "V_PREDICTION"),
    "EDM": (EDMNoise(0.002, 700.0), "V_PREDICTION_EDM"),
}


def hosts(noise, kind):
    """The host's model sampling for the same schedule."""
    import comfy.model_base
    import comfy.supported_models_base

    config = comfy.supported_models_base.BASE({})
    if isinstance(noise, EDMNoise):
        config.sampling_settings = {"sigma_min": noise.sigma_min, "sigma_max": noise.sigma_max}
    else:
        config.sampling_settings = {
            "beta_schedule": WORDS[noise.kind],
            "linear_start": noise.beta_start,
            "linear_end": noise.beta_end,
            "zsnr": noise.zero_terminal_snr,
        }
    return comfy.model_base.model_sampling(config, getattr(comfy.model_base.ModelType, kind))


def draw(seed):
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", KINDS)
class TestAgainstTheHost:
    def test_levels_and_timesteps(self, comfy_here, name):
        noise, kind = KINDS[name]
        theirs = hosts(noise, kind)
        ours = noise.sigmas().float()
        # the host's own stand-in for a terminal level of infinity is 4518
        compared = slice(None, -1) if name == "v zero terminal SNR" else slice(None)
        assert relative(ours[compared].log(), theirs.sigmas[compared].log()) <= 1e-4
        assert ours.shape == theirs.sigmas.shape == (1000,)
        sigma = ours[[0, 300, 700, 998]]
        assert torch.allclose(noise.timestep(sigma).float(), theirs.timestep(sigma).float(), atol=1e-5)

    def test_what_the_network_sees_and_what_becomes_of_its_output(self, comfy_here, name):
        noise, kind = KINDS[name]
        theirs, sigma = hosts(noise, kind), noise.sigmas()[[10, 500, 990]].float()
        x, output = draw(0) * sigma.view(-1, 1, 1, 1), draw(1)
        assert torch.equal(noise.scaled(x, sigma), theirs.calculate_input(sigma, x))
        assert torch.equal(noise.denoised(x, output, sigma), theirs.calculate_denoised(sigma, output, x))
        assert torch.equal(noise.noisy(x, output, sigma), theirs.noise_scaling(sigma, output.clone(), x))

    def test_our_models_sample_by_it(self, comfy_here, name):
        """A schedule that names epsilon was once given the host's v."""
        from kinetograph.nodes.host.diffusion import sampling_of

        noise, kind = KINDS[name]
        ours, theirs = sampling_of(noise), hosts(noise, kind)
        sigma, x, output = ours.sigmas[[10, 500, 990]], draw(2) * 3, draw(3)
        assert torch.equal(
            ours.calculate_denoised(sigma, output, x), theirs.calculate_denoised(sigma, output, x)
        )
        assert torch.equal(ours.calculate_input(sigma, x), theirs.calculate_input(sigma, x))
        assert torch.equal(ours.timestep(sigma).float(), noise.timestep(sigma).float())

    def test_it_is_read_off_the_hosts_own(self, comfy_here, name):
        from kinetograph.nodes.host.description import noise_of

        noise, kind = KINDS[name]
        read = noise_of(hosts(noise, kind))
        assert isinstance(read, EDMNoise if isinstance(noise, EDMNoise) else ReadNoise)
        assert read.prediction == noise.prediction
        assert relative(read.sigmas()[:-1].log(), noise.sigmas()[:-1].log()) <= 1e-4


def test_processes_that_are_none_of_ours_are_not_taken_for_one(comfy_here):
    import comfy.model_base
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    from kinetograph.nodes.host.description import noise_of

    kinds, noise = comfy.model_base.ModelType, KINDS["epsilon scaled"][0]
    for strange in (kinds.FLOW, kinds.EDM, kinds.FLUX):
        assert noise_of(hosts(noise, strange.name)) is None
    model = image_model()
    for word, prediction in (("eps", "epsilon"), ("v_prediction", "v"), ("lcm", None), ("x0", None)):
        (patched,) = ModelSamplingDiscrete().patch(model, word, False)
        read = noise_of(patched.get_model_object("model_sampling"))
        assert (read and read.prediction) == prediction, word


def test_a_model_sampling_that_another_node_put_in_counts(comfy_here):
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

    from kinetograph.nodes.host.description import describe

    model = svd_parts.make_host_svd()
    assert describe(model, "A node").noise == EDMNoise(pytest.approx(0.002), pytest.approx(700.0, rel=1e-4))
    (patched,) = ModelSamplingContinuousEDM().patch(model, "v_prediction", 80.0, 0.01)
    assert describe(patched, "A node").noise.sigma_max == pytest.approx(80.0, rel=1e-4)
    assert describe(model, "A node").noise.sigma_max == pytest.approx(700.0, rel=1e-4)
