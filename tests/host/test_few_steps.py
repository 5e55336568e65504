"""Distilled models on the real host: their levels, steps and noise against runs composed of the references' classes."""

import math
from pathlib import Path

import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.tests import motion_files, tiny_svd
from kinetograph.tests.host import lora_files, pictures
from kinetograph.tests.host.test_lora_dialects import stacked
from kinetograph.tests.host.test_svd_adoption import image_model
from kinetograph.tests.host.workbench import Seen, SVDWorkbench, Workbench, per_frame, relative, run

SEED = 11
TOLERANCE = 1e-5
LATENT_SCALE, SCALE_2B = 0.18215, 1.15258426
LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}  # of motion modules


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


def drawn(shape, seed):
    """The first noise of a seed, as the host draws it."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def cog(comfy_here):
    return Workbench()


@pytest.fixture(scope="module")
def motion(comfy_here):
    """A tiny SD1.5 of the host with the betas of motion modules, which the host calls sqrt_linear."""
    import comfy.model_base
    import comfy.supported_models_base

    config = comfy.supported_models_base.BASE({})
    config.sampling_settings = {
        "beta_schedule": "sqrt_linear",
        "linear_start": 0.00085,
        "linear_end": 0.012,
    }
    model = image_model()
    sampling = comfy.model_base.model_sampling(config, comfy.model_base.ModelType.EPS)
    model.add_object_patch("model_sampling", sampling)
    return model


@pytest.fixture(scope="module")
def words():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 5, 16, generator=generator) for _ in range(2)]


@pytest.fixture(scope="module")
def told(bench):
    positive, negative = bench.condition(bench.empty(), fps=8, motion_bucket_id=80)
    return {"positive": positive, "negative": negative, "seed": SEED, "scheduler": "animatelcm_svd"}


@pytest.fixture(scope="module")
def made(comfy_here):
    return lora_files.changes(lora_files.reference("2B"))


@pytest.fixture(scope="module")
def distilled(cog, made):
    import folder_paths

    folder = Path(folder_paths.get_folder_paths("loras")[0])
    tensors = lora_files.tensors_of(made, lora_files.DIALECTS["PEFT"])
    name = lora_files.write(folder, "tdm-2b.safetensors", tensors)
    return stacked(cog, cog.shared("2B")[0], (name, 1.0))[0]


class TestPictureModels:
    """AnimateLCM and AnimateDiff-Lightning, whose network is SD1.5's with a motion module: here without one."""

    def ours(self, bench, model, words, steps, cfg=1.5, **changes):
        told = dict(zip(("positive", "negative"), ([[word, {}]] for word in words), strict=True))
        latent = {"samples": torch.zeros(3, 4, 8, 8), "num_frames": 3}
        return bench.sampler(model, latent, steps=steps, cfg=cfg, seed=SEED, **told, **changes) * LATENT_SCALE

    def epsilon(self, model, words, cfg=1.5):
        """(x at unit variance, timestep) -> the guided epsilon, one prompt at a time."""
        network = model.model.diffusion_model

        def answer(x, timestep):
            rows = torch.full((len(x),), float(timestep))
            cond, uncond = (network(x, rows, word.expand(len(x), -1, -1)) for word in words)
            return uncond + cfg * (cond - uncond)

        return answer

    @pytest.mark.parametrize("original, steps", [(100, 1), (100, 4), (100, 8), (50, 4)])
    def test_lcm_is_diffusers(self, bench, motion, words, original, steps):
        """The host's sampler leaves out c_skip and c_out of the boundary: 2e-7 at most at these timesteps."""
        ours = self.ours(bench, motion, words, steps, sampler_name="lcm", scheduler=f"lcm_{original}")
        scheduler = peers.load_diffusers().LCMScheduler(**LINEAR, original_inference_steps=original)
        scheduler.set_timesteps(steps)
        # the host draws the noise between steps of the seed that follows, on a CPU
        between = torch.Generator().manual_seed(SEED + 1)
        with torch.inference_mode():
            answer, x = self.epsilon(motion, words), drawn((3, 4, 8, 8), SEED)
            for timestep in scheduler.timesteps:
                step = scheduler.step(answer(x, timestep), timestep, x, between)
                x = step.prev_sample
        assert relative(ours, step.denoised) <= TOLERANCE
        other = self.ours(bench, motion, words, steps, sampler_name="lcm", scheduler="normal")
        assert steps == 1 or relative(other, step.denoised) > 1e-3

    @pytest.mark.parametrize("steps", [1, 2, 4, 8])
    def test_lightning_is_diffusers(self, bench, motion, words, steps):
        """cfg 1, one pass a step. The first noise is the host's, sqrt(sigma^2 + 1) of one, where diffusers has sigma."""
        ours = self.ours(bench, motion, words, steps, cfg=1.0, sampler_name="euler", scheduler="trailing")
        kind = peers.load_diffusers().EulerDiscreteScheduler
        scheduler = kind(**LINEAR, timestep_spacing="trailing", steps_offset=1)
        scheduler.set_timesteps(steps)
        x = drawn((3, 4, 8, 8), SEED) * (float(scheduler.sigmas[0]) ** 2 + 1) ** 0.5
        with torch.inference_mode():
            answer = self.epsilon(motion, words, 1.0)
            for timestep in scheduler.timesteps:
                seen = scheduler.scale_model_input(x, timestep)
                x = scheduler.step(answer(seen, timestep), timestep, x).prev_sample
        assert relative(ours, x) <= TOLERANCE

    @pytest.mark.parametrize("scheduler", ["animatelcm_svd", "edm"])
    def test_levels_of_svd_are_refused_with_what_fits(self, bench, motion, words, scheduler):
        message = f"Scheduler {scheduler} is for models with continuous .* lcm_100 for AnimateLCM"
        with pytest.raises(ValueError, match=message):
            self.ours(bench, motion, words, 4, sampler_name="lcm", scheduler=scheduler)


class TestMotionModules:
    """What the network of SD1.5 with motion modules is shown at each step, in the schedule that they were trained with."""

    @pytest.fixture(params=["v2", "AnimateLCM"])
    def seen(self, request, bench, base):
        """(MODEL, what its network was shown and gave): Lightning is of v2's layout."""
        from comfy.patcher_extension import WrappersMP

        file = base / "models" / "animatediff_models" / f"few-{request.param}.safetensors"
        motion_files.write(file, motion_files.CONFIGS[request.param])
        told = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
        name = f"animatediff_models/{file.name}"
        model = run(bench.ours["MotionModuleApply"], model=pictures.build(), motion_module=name, **told)[0]
        calls = []

        def watch(executor, x, timestep, *args, **conditions):
            answer = executor(x, timestep, *args, **conditions)
            calls.append((x.clone(), timestep.clone(), answer.clone()))
            return answer

        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_seen", watch)
        return model, calls

    @pytest.mark.parametrize("distilled", ["lcm", "lightning"])
    def test_each_step_is_diffusers(self, bench, seen, distilled):
        """Its answers put into diffusers' scheduler lead to what it was shown next, and to the same clip."""
        model, calls = seen
        library, between = peers.load_diffusers(), torch.Generator().manual_seed(SEED + 1)
        if distilled == "lcm":
            scheduler, chosen = (
                library.LCMScheduler(**LINEAR, original_inference_steps=100),
                ("lcm", "lcm_100"),
            )
        else:
            kind = library.EulerDiscreteScheduler
            scheduler = kind(**LINEAR, timestep_spacing="trailing", steps_offset=1)
            chosen = "euler", "trailing"
        positive, negative = pictures.prompts()
        told = {"positive": positive, "negative": negative, "cfg": 1.0, "steps": 4, "seed": SEED}
        latent = {"samples": torch.zeros(3, 4, 8, 8), "num_frames": 3}
        ours = bench.sampler(model, latent, sampler_name=chosen[0], scheduler=chosen[1], **told)
        scheduler.set_timesteps(4)
        assert [int(timestep[0]) for _, timestep, _ in calls] == [999, 749, 499, 249]
        x = drawn((3, 4, 8, 8), SEED)
        if distilled == "lightning":
            x = x * (float(scheduler.sigmas[0]) ** 2 + 1) ** 0.5
        for timestep, (shown, _, answer) in zip(scheduler.timesteps, calls, strict=True):
            assert relative(scheduler.scale_model_input(x, timestep), shown) <= TOLERANCE
            more = {"generator": between} if distilled == "lcm" else {}
            step = scheduler.step(answer, timestep, x, **more)
            x = step.prev_sample
        assert relative(ours * LATENT_SCALE, x) <= TOLERANCE and ours.std() > 0.01


class TestAnimateLCMSVD:
    """Four steps of a consistency model (G-U-N/AnimateLCM, animatelcm_svd), its authors' guidance and numbers."""

    def reference(self, told, steps):
        """Latents of the formulas: x0 of each level, and new noise for the next one."""
        unet, between = tiny_svd.unet(), torch.Generator().manual_seed(SEED + 1)
        token, condition = told["positive"][0]
        image, scale = condition["concat_latent_image"], torch.linspace(1.0, 1.2, 3).view(-1, 1, 1, 1)
        low, high = 0.002 ** (1 / 7), 700 ** (1 / 7)
        sigmas = [(high + i * (40 // steps) / 39 * (low - high)) ** 7 for i in range(steps)]
        x = drawn((3, 4, 8, 8), SEED) * (sigmas[0] ** 2 + 1) ** 0.5

        def denoised(x, sigma, share):
            seen = torch.cat([x / (sigma**2 + 1) ** 0.5, image.expand(3, -1, -1, -1) * share], dim=1)
            level, numbers = torch.tensor(math.log(sigma) / 4), torch.tensor([[7.0, 80.0, 0.02]])
            v = unet(seen[None], level, token * share, numbers).sample[0]
            return x / (sigma**2 + 1) - v * sigma / (sigma**2 + 1) ** 0.5

        for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            cond, uncond = denoised(x, sigma, 1), denoised(x, sigma, 0)
            x = uncond + scale * (cond - uncond)
            if following:
                x = x + torch.randn(x.shape, generator=between) * following
        return x / LATENT_SCALE

    @pytest.mark.parametrize("steps", [1, 4])
    def test_it_is_the_authors_run(self, bench, told, steps):
        seen = Seen(bench.svd()[0])
        chosen = {"guidance": per_frame(1.0, 1.2), "sampler_name": "lcm", "steps": steps}
        ours = bench.sampler(seen.model, bench.empty(), **told, **chosen)
        with torch.inference_mode():
            theirs = self.reference(told, steps)
        assert relative(ours, theirs) <= TOLERANCE
        assert sum(len(call["x"]) for call in seen.calls) == 2 * 3 * steps
        if steps > 1:
            plain = bench.sampler(bench.svd()[0], bench.empty(), **{**told, "scheduler": "edm"}, **chosen)
            assert relative(plain, theirs) > 1e-2

    @pytest.mark.parametrize("scheduler", ["lcm_100", "lcm_50", "tdm"])
    def test_timesteps_are_refused_with_what_fits(self, bench, told, scheduler):
        message = (
            f"Scheduler {scheduler} is for models with .* 1000 timesteps.* animatelcm_svd for AnimateLCM-SVD"
        )
        with pytest.raises(ValueError, match=message):
            bench.sampler(
                bench.svd()[0], bench.empty(), **{**told, "scheduler": scheduler}, sampler_name="lcm"
            )


class TestTDM:
    """The four-step LoRA of CogVideoX 2B in PEFT's keys (Luo-Yihong/TDM): strength 1, guidance 1, DDIM."""

    def reference(self, made, context, visited):
        """Latents (1, c, t, h, w) of DDIM over these timesteps; the network is diffusers' with the LoRA merged."""
        kind = peers.load_diffusers().CogVideoXDDIMScheduler
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "snr_shift_scale": 3.0}
        known = kind(**betas, rescale_betas_zero_snr=True).alphas_cumprod.double()[visited]
        alphas = [*known.tolist(), 1.0]
        network = lora_files.merged(lora_files.reference("2B"), made, 1.0)
        x = drawn((1, 16, 3, 8, 8), SEED)
        for timestep, alpha, following in zip(visited, alphas, alphas[1:], strict=False):
            told = {"encoder_hidden_states": context, "timestep": torch.tensor([timestep])}
            v = network(x.transpose(1, 2), **told).sample.transpose(1, 2)
            x0 = alpha**0.5 * x - (1 - alpha) ** 0.5 * v
            epsilon = alpha**0.5 * v + (1 - alpha) ** 0.5 * x
            x = following**0.5 * x0 + (1 - following) ** 0.5 * epsilon
        return x / SCALE_2B

    def run(self, cog, model, **changes):
        chosen = {"steps": 4, "scheduler": "tdm", "sampler_name": "cogvideox_ddim", "cfg": 1.0, "seed": SEED}
        return cog.sampler(model, cog.empty(), **{**chosen, **changes})

    def test_four_steps_are_the_merged_network_at_its_timesteps(self, cog, distilled, made):
        seen = Seen(distilled)
        ours = self.run(cog, seen.model)
        with torch.inference_mode():
            theirs = self.reference(made, cog.text()[0][0], [999, 856, 665, 399])
        assert relative(ours, theirs) <= TOLERANCE
        assert [len(call["x"]) for call in seen.calls] == [1] * 4
        assert relative(self.run(cog, cog.shared("2B")[0]), theirs) > 1e-2
        assert relative(self.run(cog, distilled, scheduler="trailing"), theirs) > 1e-2

    def test_another_number_of_steps_is_refused_before_the_network_is_asked(self, cog, distilled):
        seen = Seen(distilled)
        with pytest.raises(ValueError, match="tdm is for 4 steps at denoise 1.*got 8 at 1"):
            self.run(cog, seen.model, steps=8)
        assert seen.calls == []
