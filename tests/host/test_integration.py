"""The host's samplers and ours on one MODEL: the same numbers, and guidance by its formulas."""

import inspect
import math

import pytest
import torch

from kinetograph.tests.host.workbench import Workbench, relative, run

SAMPLERS = ["ddim", "euler", "dpmpp_2m", "dpmpp_2m_sde", "heun", "uni_pc"]


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


class TestSameAsKSampler:
    """VideoSampler is KSampler bit for bit at equal settings."""

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_from_noise(self, bench, name):
        model = bench.shared()[0]
        theirs = bench.ksampler(model, bench.empty(), sampler_name=name)
        ours = bench.sampler(model, bench.empty(), sampler_name=name)
        assert torch.equal(ours, theirs)
        assert theirs.isfinite().all() and theirs.std() > 0.01

    @pytest.mark.parametrize("name", ["ddim", "dpmpp_2m_sde"])
    def test_from_a_clip(self, bench, name):
        model, latent = bench.shared()[0], bench.clip()
        chosen = {"sampler_name": name, "denoise": 0.5, "scheduler": "sgm_uniform", "steps": 4}
        theirs = bench.ksampler(model, latent, **chosen)
        assert torch.equal(bench.sampler(model, latent, **chosen), theirs)
        assert not torch.equal(theirs, bench.ksampler(model, bench.clip(seed=1), **chosen))

    @pytest.mark.parametrize("variant", ["2B", "1.5-5B"])
    def test_other_variants(self, bench, variant):
        """1.5 samples an added latent frame here, in both samplers."""
        model = bench.shared(variant)[0]
        theirs = bench.ksampler(model, bench.empty(9))
        assert torch.equal(bench.sampler(model, bench.empty(9)), theirs)
        assert theirs.shape[2] == 3

    def test_batches_masks_and_previews(self, bench):
        """A second clip, a mask that keeps half the picture, and the filmstrip change nothing else."""
        model, clip = bench.shared()[0], bench.clip()
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., 4:] = 1
        latent = {**clip, "samples": clip["samples"].repeat(2, 1, 1, 1, 1), "noise_mask": mask}
        theirs = bench.ksampler(model, latent)
        assert torch.equal(bench.sampler(model, latent, preview=True), theirs)
        assert relative(theirs[..., :4], latent["samples"][..., :4]) < 1e-6
        assert not torch.equal(theirs[0], theirs[1])

    def test_sampler_custom_advanced(self, bench):
        from comfy_extras import nodes_custom_sampler as custom

        model, latent = bench.shared()[0], bench.empty()
        (noise,) = run(custom.RandomNoise, noise_seed=7)
        conds = {"positive": bench.text(), "negative": bench.text("")}
        (guider,) = run(custom.CFGGuider, model=model, cfg=6.0, **conds)
        (sampler,) = run(custom.KSamplerSelect, sampler_name="euler")
        (sigmas,) = run(custom.BasicScheduler, model=model, scheduler="simple", steps=3, denoise=1.0)
        parts = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas}
        out = run(custom.SamplerCustomAdvanced, latent_image=latent, **parts)[0]["samples"]
        assert torch.equal(out, bench.sampler(model, latent))


class Recorder:
    """A post-CFG hook of the host that keeps what each step was made of."""

    def __init__(self, model):
        self.steps = []
        self.model = model.clone()
        self.model.set_model_sampler_post_cfg_function(self)

    def __call__(self, args):
        self.steps.append({key: args[key] for key in ("denoised", "cond_denoised", "uncond_denoised")})
        return args["denoised"]


class TestGuidance:
    """Every step blends both predictions by the formula of the schedule."""

    STEPS = 5

    def blended(self, bench, guidance, scales, sampler_name="euler"):
        recorder = Recorder(bench.shared()[0])
        bench.sampler(
            recorder.model, bench.empty(), guidance=guidance, steps=self.STEPS, sampler_name=sampler_name
        )
        assert len(recorder.steps) == len(scales)
        for step, scale in zip(recorder.steps, scales, strict=True):
            if isinstance(scale, torch.Tensor):
                scale = scale.view(1, 1, -1, 1, 1)
            cond, uncond = step["cond_denoised"], step["uncond_denoised"]
            assert relative(step["denoised"], uncond + scale * (cond - uncond)) < 1e-6

    def cosine(self, u, cfg=6.0):
        return 1 + cfg * (1 - math.cos(math.pi * u**5)) / 2

    def test_dynamic_cosine_by_step(self, bench):
        guidance = {"guidance": "dynamic cosine", "cfg": 6.0, "clock": "step"}
        self.blended(bench, guidance, [self.cosine(step / self.STEPS) for step in range(self.STEPS)])

    def test_dynamic_cosine_by_timestep(self, bench):
        """As CogVideoXPipeline of diffusers counts: timesteps of trailing spacing, not steps."""
        timesteps = [round(1000 - i * 1000 / self.STEPS) - 1 for i in range(self.STEPS)]
        scales = [self.cosine((self.STEPS - t) / self.STEPS) for t in timesteps]
        self.blended(bench, {"guidance": "dynamic cosine", "cfg": 6.0, "clock": "timestep"}, scales)

    def test_dynamic_cosine_between_steps(self, bench):
        """Heun asks twice a step: at its start and at its end."""
        guidance = {"guidance": "dynamic cosine", "cfg": 6.0, "clock": "step"}
        asked = [step / self.STEPS for step in (0, 1, 1, 2, 2, 3, 3, 4, 4)]
        self.blended(bench, guidance, [self.cosine(u) for u in asked], sampler_name="heun")

    def test_per_frame_linear(self, bench):
        guidance = {"guidance": "per-frame linear", "min_cfg": 1.0, "max_cfg": 6.0}
        self.blended(bench, guidance, [torch.tensor([1.0, 3.5, 6.0])] * self.STEPS)

    def test_per_frame_linear_of_equal_ends_is_constant(self, bench):
        model, latent = bench.shared()[0], bench.empty()
        level = {"guidance": "per-frame linear", "min_cfg": 6.0, "max_cfg": 6.0}
        assert torch.equal(bench.sampler(model, latent, guidance=level), bench.sampler(model, latent))

    def test_a_blend_of_the_user_is_asked_for_each_frame(self, bench):
        """RescaleCFG and its like replace the blend; they get one scale per frame."""
        scales = []

        def blend(args):
            scales.append(args["cond_scale"])
            return args["uncond"] + (args["cond"] - args["uncond"]) * args["cond_scale"]

        model = bench.shared()[0].clone()
        model.set_model_sampler_cfg_function(blend)
        guidance = {"guidance": "per-frame linear", "min_cfg": 1.0, "max_cfg": 6.0}
        ours = bench.sampler(model, bench.empty(), guidance=guidance)
        assert [scale.flatten().tolist() for scale in scales] == [[1.0, 3.5, 6.0]] * 3
        assert relative(ours, bench.sampler(bench.shared()[0], bench.empty(), guidance=guidance)) < 1e-2


class TestContextWindows:
    """The host's context windows along dim 2 of our 5-D latents."""

    def windowed(self, model, length, overlap, causal=False):
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Windows

        if causal and "causal_window_fix" not in inspect.signature(Windows.execute).parameters:
            pytest.skip("this host has no causal window fix")
        chosen = {
            "context_length": length,
            "context_overlap": overlap,
            "context_schedule": "standard_static",
            "context_stride": 1,
            "closed_loop": False,
            "fuse_method": "flat",
            "dim": 2,
            "freenoise": False,
            "causal_window_fix": causal,
        }
        return run(Windows, model=model, **chosen)[0]

    def test_one_window_is_the_whole_clip(self, bench):
        model, latent = bench.shared()[0], bench.empty(17)
        assert torch.equal(bench.ksampler(self.windowed(model, 5, 0), latent), bench.ksampler(model, latent))

    def test_windows_are_blended(self, bench):
        """One step of three flat windows is the mean of three runs on slices of the noise."""
        model = bench.shared()[0]
        noise = torch.randn((1, 16, 5, 8, 8), generator=torch.manual_seed(7))
        whole = self.first_prediction(bench, self.windowed(model, 3, 2), noise)
        total, count = torch.zeros_like(whole), torch.zeros(1, 1, 5, 1, 1)
        for start in (0, 1, 2):
            part = noise[:, :, start : start + 3].contiguous()
            total[:, :, start : start + 3] += self.first_prediction(bench, model, part)
            count[:, :, start : start + 3] += 1
        assert relative(whole, total / count) < 1e-5

    def first_prediction(self, bench, model, noise):
        """What the host predicts from given noise alone."""
        import comfy.sample

        recorder = Recorder(model)
        run = {"steps": 1, "cfg": 6.0, "sampler_name": "euler", "scheduler": "simple", "seed": 7}
        run |= {"positive": bench.text(), "negative": bench.text(""), "disable_pbar": True}
        with torch.inference_mode():
            comfy.sample.sample(recorder.model, noise, latent_image=torch.zeros_like(noise), **run)
        return recorder.steps[0]["denoised"]

    def test_causal_window_fix(self, bench):
        """0.30 puts a frame before each window but the first; a patch of one frame does not mind."""
        model = self.windowed(bench.shared()[0], 3, 1, causal=True)
        assert bench.ksampler(model, bench.empty(17)).isfinite().all()

    def test_even_windows_of_1_5(self, bench):
        model = bench.shared("1.5-5B")[0]
        assert bench.ksampler(self.windowed(model, 4, 2), bench.empty(29)).shape[2] == 8

    def test_odd_windows_of_1_5_are_refused(self, bench):
        model = bench.shared("1.5-5B")[0]
        with pytest.raises(ValueError, match="multiple of 2 latent frames: got 3, use 2 or 4"):
            bench.ksampler(self.windowed(model, 3, 1), bench.empty(29))
