"""Noise levels of distilled models against diffusers' schedulers, published numbers and their formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.noise import DiscreteNoise
from kinetograph.modules.sampling import samplers, schedules

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"
SVD_LEVELS = (0.002, 700.0)  # sigma_min, sigma_max
LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}  # of motion modules


def motion_noise():
    return DiscreteNoise("epsilon", 0.00085, 0.012, "linear")


def cogvideox_2b():
    return DiscreteNoise("v", 0.00085, 0.012, "scaled_linear", snr_shift=3.0, zero_terminal_snr=True)


class TestLCM:
    def reference(self, steps, original, denoise=1.0):
        scheduler = peers.load_diffusers().LCMScheduler(**LINEAR, original_inference_steps=original)
        scheduler.set_timesteps(steps, strength=denoise)
        return scheduler

    @pytest.mark.parametrize("original", [50, 100])
    def test_timesteps_are_those_of_diffusers(self, original):
        for steps in range(1, original + 1):
            expected = self.reference(steps, original).timesteps.tolist()
            assert schedules.lcm_timesteps(steps, original) == expected, steps

    def test_four_steps_of_animatelcm(self):
        assert schedules.lcm_timesteps(4, 100) == [999, 749, 499, 249]
        assert schedules.lcm_timesteps(8, 100) == [999, 879, 749, 629, 499, 379, 249, 129]
        assert schedules.lcm_timesteps(4, 50) == [999, 759, 499, 259]

    @pytest.mark.parametrize("denoise", [0.9, 0.6, 0.29])
    @pytest.mark.parametrize("steps", [1, 4, 7])
    def test_less_strength_is_that_of_diffusers(self, steps, denoise):
        expected = self.reference(steps, 100, denoise).timesteps.tolist()
        assert schedules.lcm_timesteps(steps, 100, denoise) == expected
        assert expected[0] < 999

    @pytest.mark.parametrize("steps", [1, 4, 6, 8])
    def test_levels_are_those_of_the_timesteps(self, steps):
        scheduler = self.reference(steps, 100)
        alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps]
        levels = schedules.lcm_levels(motion_noise().sigmas(), steps, original=100)
        assert levels[-1] == 0 and len(levels) == steps + 1
        assert levels[:-1] == pytest.approx(((1 - alphas) / alphas).sqrt().tolist(), rel=1e-5)

    @pytest.mark.parametrize("original, steps, denoise", [(50, 51, 1.0), (100, 4, 0.03)])
    def test_more_steps_than_it_was_distilled_at_are_refused(self, original, steps, denoise):
        left = int(original * denoise)
        with pytest.raises(ValueError, match=f"distilled at {original} timesteps .* {left} .* got {steps}"):
            schedules.lcm_timesteps(steps, original, denoise)
        with pytest.raises(ValueError):
            self.reference(steps, original, denoise)


def test_lightning_is_euler_on_trailing_timesteps():
    for steps in (1, 2, 3, 4, 8):
        kind = peers.load_diffusers().EulerDiscreteScheduler
        scheduler = kind(**LINEAR, timestep_spacing="trailing", steps_offset=1)
        scheduler.set_timesteps(steps)
        levels = schedules.trailing_levels(motion_noise().sigmas(), steps)
        assert levels == pytest.approx(scheduler.sigmas.tolist(), rel=1e-5)


class TestAnimateLCMSVD:
    # published for 8 steps; 4 and 2 take every second and fourth of them
    EIGHT = (700, 315.7374, 128.5637, 45.85072, 13.67844, 3.16661, 0.49688, 0.03975)

    def levels(self, steps, denoise=1.0):
        return schedules.animatelcm_svd_levels(steps, *SVD_LEVELS, denoise)

    @pytest.mark.parametrize("steps", [1, 2, 4, 8])
    def test_published_levels(self, steps):
        assert self.levels(steps) == pytest.approx([*self.EIGHT[:: 8 // steps], 0.0], rel=1e-6, abs=5e-6)

    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 13, 21, 40])
    def test_levels_are_those_of_the_authors_grid(self, steps):
        """arange(n) * (40 // n) of a ramp with 39 intervals, even in sigma^(1/7)."""
        places = np.arange(steps) * (40 // steps) / 39
        low, high = (sigma ** (1 / 7) for sigma in SVD_LEVELS)
        assert self.levels(steps)[:-1] == pytest.approx(((high + places * (low - high)) ** 7).tolist())
        assert len(self.levels(steps)) == steps + 1 and self.levels(steps)[-1] == 0

    def test_less_strength_leaves_the_upper_levels_out(self):
        whole = self.levels(40)
        assert self.levels(4, 0.5) == [*whole[20:40:5], 0.0]
        with pytest.raises(
            ValueError, match="distilled at 40 levels takes up to 2 steps at denoise 0.05: got 4"
        ):
            self.levels(4, 0.05)
        with pytest.raises(ValueError, match="up to 40 steps at denoise 1: got 41"):
            self.levels(41)


class TestTDM:
    VISITED = (999, 856, 665, 399)

    def test_four_steps_are_those_of_its_training(self):
        noise = cogvideox_2b()
        levels = schedules.tdm_levels(noise.sigmas(), 4)
        alphas = noise.alphas_cumprod()[list(self.VISITED)]
        assert levels[0] == noise.terminal and levels[-1] == 0
        assert levels[1:-1] == pytest.approx(((1 - alphas) / alphas).sqrt()[1:].tolist())

    @pytest.mark.parametrize("steps, denoise", [(1, 1.0), (8, 1.0), (4, 0.99)])
    def test_other_steps_are_refused_with_the_way_out(self, steps, denoise):
        words = f"tdm is for 4 steps at denoise 1, .* 999, 856, 665, 399: got {steps} at .* choose trailing"
        with pytest.raises(ValueError, match=words):
            schedules.tdm_levels(cogvideox_2b().sigmas(), steps, denoise)

    def test_its_run_is_ddim_over_them(self):
        """Song et al. (arXiv 2010.02502), eq. 12, in the coordinates of v, whose x is sqrt(alpha_bar) x0 + ..."""
        noise = cogvideox_2b()
        start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        alphas = [*noise.alphas_cumprod()[list(self.VISITED)].tolist(), 1.0]
        x = start
        for alpha, following in zip(alphas, alphas[1:], strict=False):
            v = x.sin()
            x0 = math.sqrt(alpha) * x - math.sqrt(1 - alpha) * v
            epsilon = math.sqrt(alpha) * v + math.sqrt(1 - alpha) * x
            x = math.sqrt(following) * x0 + math.sqrt(1 - following) * epsilon

        def denoise(x, sigma):
            x = noise.scaled(x, torch.tensor(sigma))
            return noise.denoised(x * (sigma**2 + 1) ** 0.5, x.sin(), torch.tensor(sigma).double())

        levels = schedules.tdm_levels(noise.sigmas(), 4)
        run = samplers.Run(denoise, levels, noise.terminal, lambda: None, lambda *_: None)
        ours = samplers.sample_ddim(start * math.sqrt(levels[0] ** 2 + 1), run)
        assert (ours - x).abs().max() <= 1e-6 * x.abs().max()


CONSTANT, RAMP = {"guidance": "constant"}, {"guidance": "per-frame linear"}
# what their authors publish, by template and node
PUBLISHED = {
    "animatediff_lightning": {
        "KinetographVideoSampler": {"steps": 4, **CONSTANT, "guidance.cfg": 1, "sampler_name": "euler"},
        "KinetographMotionModuleApply": {"beta_schedule": "as trained", "strength": 1},
    },
    "animatelcm_text_to_video": {
        "KinetographVideoSampler": {"steps": 6, **CONSTANT, "guidance.cfg": 1.5, "sampler_name": "lcm"},
        "LoraLoaderModelOnly": {"strength_model": 0.8},
    },
    "animatelcm_svd_image_to_video": {
        "KinetographVideoSampler": {"steps": 4, **RAMP, "guidance.min_cfg": 1, "guidance.max_cfg": 1.2},
        "KinetographSVDConditioning": {"fps": 8, "motion_bucket_id": 80, "noise_aug_strength": 0.02},
        "KinetographVAEDecodeChunked": {"chunk": 4},
        "KinetographVideoCombine": {"frame_rate": 8},
    },
    "cogvideox_text_to_video_4_steps": {
        "KinetographVideoSampler": {"steps": 4, **CONSTANT, "guidance.cfg": 1, "seed": 8888},
        "KinetographLoRAStack": {"loras.strength_1": 1},
        "KinetographVideoCombine": {"frame_rate": 8},
    },
}
SCHEDULERS = ("trailing", "lcm_100", "animatelcm_svd", "tdm")


@pytest.mark.parametrize("name, scheduler", zip(PUBLISHED, SCHEDULERS, strict=True))
def test_templates_hold_the_published_settings(name, scheduler):
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    inputs = {node["class_type"]: node["inputs"] for node in graph.values()}
    assert inputs["KinetographVideoSampler"]["scheduler"] == scheduler
    for kind, numbers in PUBLISHED[name].items():
        assert inputs[kind] | numbers == inputs[kind]
