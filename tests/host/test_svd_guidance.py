"""The host's samplers and ours on an SVD MODEL: guidance per frame, noise levels, long clips, windows, refusals."""

import inspect

import pytest
import torch

from kinetograph.tests.host import graphs
from kinetograph.tests.host.workbench import Seen, SVDWorkbench, Workbench, per_frame, relative, run


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


@pytest.fixture(scope="module")
def told(bench):
    """Inputs of a sampler for clips of three frames."""
    positive, negative = bench.condition(bench.empty())
    return {"positive": positive, "negative": negative}


@pytest.fixture(scope="module")
def ramped(bench, told):
    """Samples with guidance from 1 to 3, both halves in one pass."""
    return bench.sampler(bench.svd()[0], bench.empty(), guidance=per_frame(1.0, 3.0), **told)


class TestTheHostsSamplers:
    def test_ksampler_is_ours_at_one_scale(self, bench, told):
        model = bench.svd()[0]
        theirs = bench.ksampler(model, bench.empty(), cfg=2.5, **told)
        assert torch.equal(bench.sampler(model, bench.empty(), cfg=2.5, **told), theirs)
        assert theirs.isfinite().all() and theirs.std() > 0.01

    def test_the_hosts_linear_guidance_is_ours_per_frame(self, bench, told, ramped):
        from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

        (model,) = run(VideoLinearCFGGuidance, model=bench.svd()[0], min_cfg=1.0)
        theirs = bench.ksampler(model, bench.empty(), cfg=3.0, **told)
        assert relative(ramped, theirs) <= 2e-5  # the host blends x - x0; 8e-6 is reached
        flat = bench.sampler(bench.svd()[0], bench.empty(), cfg=3.0, **told)
        assert relative(ramped, flat) > 1e-2

    def test_equal_ends_are_one_scale(self, bench, told):
        model, latent = bench.svd()[0], bench.empty()
        for scale in (1.0, 2.0):
            ours = bench.sampler(model, latent, guidance=per_frame(scale, scale), **told)
            assert relative(ours, bench.ksampler(model, latent, cfg=scale, **told)) <= 1e-5

    def test_sampler_custom_advanced(self, bench, told):
        from comfy_extras import nodes_custom_sampler as custom

        model, latent = bench.svd()[0], bench.empty()
        (noise,) = run(custom.RandomNoise, noise_seed=7)
        (guider,) = run(custom.CFGGuider, model=model, cfg=2.5, **told)
        (sampler,) = run(custom.KSamplerSelect, sampler_name="euler")
        (sigmas,) = run(custom.KarrasScheduler, steps=3, sigma_max=700.0, sigma_min=0.002, rho=7.0)
        parts = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas}
        out = run(custom.SamplerCustomAdvanced, latent_image=latent, **parts)[0]["samples"]
        ours = bench.sampler(model, latent, cfg=2.5, scheduler="edm", **told)
        assert relative(out, ours) <= 1e-5

    def test_the_hosts_own_conditioning_is_accepted(self, bench):
        from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

        model, vision, vae = bench.svd()
        numbers = {"motion_bucket_id": 42, "fps": 9, "augmentation_level": 0.0}
        size = {"width": 64, "height": 64, "video_frames": 3}
        made = run(
            SVD_img2vid_Conditioning,
            clip_vision=vision,
            init_image=bench.picture(),
            vae=vae,
            **size,
            **numbers,
        )
        told = {"positive": made[0], "negative": made[1], "cfg": 2.5, "steps": 2}
        theirs = bench.ksampler(model, made[2], **told)
        assert torch.equal(bench.sampler(model, made[2], **told), theirs)
        assert theirs.shape == (3, 4, 8, 8) and theirs.std() > 0.01


class TestNoiseLevels:
    def levels(self, bench, scheduler, steps=7, denoise=1.0):
        """What VideoSampler samples at."""
        from kinetograph.nodes.host.description import describe
        from kinetograph.nodes.host.sampling import Plan
        from kinetograph.nodes.pipeline.sampling import levels_of

        model = bench.svd()[0]
        own = levels_of(describe(model, "Video Sampler"), scheduler, steps, denoise)
        return Plan("euler", scheduler, steps, denoise, 0, own).sigmas(model).double()

    def test_edm_is_karras_at_full_strength(self, bench):
        ours, hosts = self.levels(bench, "edm"), self.levels(bench, "karras")
        assert torch.allclose(ours, hosts, rtol=1e-5, atol=0) and ours[-1] == hosts[-1] == 0

    def test_edm_at_half_strength_is_exvideos(self, bench):
        low, high = 0.002 ** (1 / 7), 700 ** (1 / 7)
        ramp = torch.linspace(0.5, 1, 7, dtype=torch.float64)
        ours = self.levels(bench, "edm", denoise=0.5)
        assert torch.allclose(ours[:-1], (high + ramp * (low - high)) ** 7, rtol=1e-6, atol=0)
        assert not torch.allclose(ours, self.levels(bench, "karras", denoise=0.5), rtol=0.1)

    @pytest.mark.parametrize("steps, off", [(3, 1), (7, 3), (13, 6), (30, 10), (37, 18), (50, 0)])
    def test_trailing_is_exact_where_simple_is_a_timestep_off(self, steps, off):
        """An audit counted how many steps of the host's `simple` are one timestep off."""
        from kinetograph.nodes.host.description import describe
        from kinetograph.nodes.host.sampling import Plan
        from kinetograph.nodes.pipeline.sampling import levels_of

        model = Workbench().shared()[0]
        described = describe(model, "Video Sampler")
        ours, simple = (
            Plan("euler", name, steps, 1.0, 0, levels_of(described, name, steps, 1.0)).sigmas(model)
            for name in ("trailing", "simple")
        )
        table = model.get_model_object("model_sampling").sigmas
        visited = [round(1000 * (1 - i / steps)) - 1 for i in range(steps)]
        assert torch.equal(ours[:-1], table[visited]) and ours[-1] == 0
        assert int((ours != simple).sum()) == off

    def test_trailing_is_refused_for_continuous_levels(self, bench, told):
        with pytest.raises(
            ValueError, match="trailing is for models with a noise level for each of 1000.*choose edm"
        ):
            bench.sampler(bench.svd()[0], bench.empty(), scheduler="trailing", **told)

    def test_a_model_with_steps_of_its_own_is_refused(self, bench):
        cogvideox = Workbench()
        with pytest.raises(ValueError, match="edm is for models with continuous.*CogVideoX.*choose simple"):
            cogvideox.sampler(cogvideox.shared()[0], cogvideox.empty(), scheduler="edm")

    def test_a_scheduler_without_levels_for_a_single_step_is_named(self, bench, told):
        model, seen = bench.svd()[0], Seen(bench.svd()[0])
        words = (
            "^Scheduler kl_optimal gives noise levels that are not finite for 1 step .*: take 2 steps or more"
        )
        with pytest.raises(ValueError, match=words):
            bench.sampler(seen.model, bench.empty(), scheduler="kl_optimal", steps=1, **told)
        assert seen.calls == []
        assert bench.sampler(model, bench.empty(), scheduler="kl_optimal", steps=2, **told).isfinite().all()

    def test_where_no_signal_is_left_the_clip_is_minus_the_prediction(self):
        """Exactly, whatever large number stands for the infinite sigma there (CogVideoX: zero terminal SNR)."""
        cogvideox = Workbench()
        schedule = cogvideox.shared()[0].model.model_sampling
        prediction, x = torch.randn(2, 1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
        last, before = schedule.sigmas[-1:], schedule.sigmas[-2:-1]
        x = x * last
        assert torch.equal(schedule.calculate_denoised(last, prediction, x), -prediction)
        assert relative(schedule.calculate_denoised(before, prediction, x), -prediction) > 1e-4

    def test_guidance_between_two_steps_follows_the_logarithm_of_the_noise(self, bench, told):
        """dpm_2 looks once between two levels, at their geometric mean: half a step."""
        from kinetograph.nodes.host import sampling

        model, asked = bench.svd()[0], []
        guider = sampling.ScheduledGuider(model, lambda done, frames: asked.append(done) or 2.0, 3)
        plan = sampling.Plan("dpm_2", "karras", 3, 1.0, 0)
        sampling.sample_latents(model, bench.empty(), *told.values(), guider, plan, lambda *_: None)
        assert asked == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 2 / 3], abs=1e-4)


def on(**changes):
    options = {"long_clip": "on", "sequential_cfg": False, "equalise_frames": False, "contrast_scale": 1.0}
    return {**options, **changes}


class TestLongClips:
    def sample(self, bench, told, long_clip, model=None, latent=None):
        """Samples of the sampler node with these options."""
        inputs, latent = bench.settings(model or bench.svd()[0], latent or bench.empty(), **told)
        inputs |= {"guidance": per_frame(1.0, 3.0), "long_clip": long_clip, "preview": False}
        return run(bench.ours["VideoSampler"], latent=latent, **inputs)[0]["samples"]

    def test_one_half_of_guidance_at_a_time(self, bench, told, ramped):
        both = Seen(bench.svd()[0])
        self.sample(bench, told, {"long_clip": "off"}, both.model)
        assert [len(call["x"]) for call in both.calls] == [6, 6, 6]
        turns = Seen(bench.svd()[0])
        ours = self.sample(bench, told, on(sequential_cfg=True), turns.model)
        assert [len(call["x"]) for call in turns.calls] == [3] * 6
        shown = [bool(call["context"].any()) for call in turns.calls]
        assert sorted(shown[:2]) == [False, True] and shown == shown[:2] * 3
        assert relative(ours, ramped) <= 1e-5  # a matrix product of other rows rounds in another way

    @pytest.mark.parametrize("off", [None, {"long_clip": "off"}, on()])
    def test_neutral_options_change_nothing(self, bench, told, ramped, off):
        assert torch.equal(self.sample(bench, told, off), ramped)

    def test_contrast_is_exvideos_clip_by_clip(self, bench, told):
        """Formula of arXiv 2406.14130's own code: unbiased deviations of a frame and of its clip."""
        latent = bench.empty(clips=2)
        plain = self.sample(bench, told, None, latent=latent)
        ours = self.sample(bench, told, on(equalise_frames=True, contrast_scale=1.2), latent=latent)
        for clip, done in zip(plain.split(3), ours.split(3), strict=True):
            mean, std = clip.mean((1, 2, 3), keepdim=True), clip.std((1, 2, 3), keepdim=True)
            assert relative(done, ((clip - mean) / std * clip.std() + clip.mean()) * 1.2) <= 1e-5
        assert relative(ours, plain * 1.2) > 1e-3

    def test_a_contrast_that_is_no_number_is_refused(self, bench, told):
        for value in (float("nan"), 40.0):
            with pytest.raises(ValueError, match="contrast_scale must be a number from 0.1 to 4"):
                self.sample(bench, told, on(contrast_scale=value))

    def test_prompts_from_before_the_options_are_accepted(self, bench):
        node = bench.ours["VideoSampler"]
        saved = graphs.picture_to_video("a.png")["sampler"]["inputs"]
        assert "long_clip" not in saved
        assert node.validate_inputs(guidance={"guidance": "constant", "cfg": 1.0}) is True
        assert "off, on" in node.validate_inputs(
            long_clip="perhaps", guidance={"guidance": None, "cfg": None}
        )


class TestContextWindows:
    """The host's windows along the batch axis: each is a clip of its own for the network."""

    def windowed(self, model, length, overlap):
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Windows

        chosen = {"context_length": length, "context_overlap": overlap, "context_stride": 1, "dim": 0}
        chosen |= {"context_schedule": "standard_static", "closed_loop": False, "fuse_method": "flat"}
        chosen |= {"freenoise": False}
        if "causal_window_fix" in inspect.signature(Windows.execute).parameters:
            chosen["causal_window_fix"] = False
        return run(Windows, model=model, **chosen)[0]

    def test_each_window_gets_its_own_frames(self, bench):
        latent, images = bench.empty(5), bench.picture(5)
        positive, negative = bench.condition(latent, images, noise_aug_strength=0.0)
        told = {"positive": positive, "negative": negative, "steps": 1, "guidance": per_frame(1.0, 3.0)}
        seen = Seen(bench.svd()[0])
        ours = bench.sampler(self.windowed(seen.model, 3, 2), latent, **told)
        assert ours.shape == (5, 4, 8, 8) and ours.isfinite().all()
        tokens, pictures = positive[0][0], positive[0][1]["concat_latent_image"]
        found = []
        for call in seen.calls:
            assert call["num_video_frames"] == 3
            for x, context in zip(call["x"].split(3), call["context"].split(3), strict=True):
                starts = [start for start in (0, 1, 2) if torch.equal(context, tokens[start : start + 3])]
                found += starts
                assert starts == [] or torch.equal(x[:, 4:], pictures[starts[0] : starts[0] + 3])
        assert found == [0, 1, 2]

    def test_one_window_is_the_whole_clip(self, bench, told, ramped):
        model = self.windowed(bench.svd()[0], 3, 0)
        assert torch.equal(bench.sampler(model, bench.empty(), guidance=per_frame(1.0, 3.0), **told), ramped)


class TestWhatDoesNotFit:
    """Refused before the network is asked: what came, what is allowed, what to do."""

    @pytest.fixture
    def refused(self, bench, told):
        def attempt(latent, message, **changes):
            seen = Seen(bench.svd()[0])
            with pytest.raises(ValueError, match=message):
                bench.sampler(seen.model, latent, **{**told, **changes})
            assert seen.calls == []

        return attempt

    def test_a_latent_with_an_axis_of_frames(self, refused):
        message = r"SVD UNet takes latents of shape \(frames, 4, height, width\): got \(1, 16, 3, 8, 8\).*Video Latent"
        refused({"samples": torch.zeros(1, 16, 3, 8, 8)}, message)

    def test_a_latent_of_four_channels_into_cogvideox(self, bench):
        cogvideox = Workbench()
        message = (
            r"CogVideoX 5B.* takes latents of shape \(batch, 16, frames, .*got \(3, 4, 8, 8\).*Video Latent"
        )
        with pytest.raises(ValueError, match=message):
            cogvideox.sampler(cogvideox.shared()[0], bench.empty())

    def test_a_size_that_cannot_be_halved(self, refused):
        latent = {"samples": torch.zeros(3, 4, 9, 8), "num_frames": 3}
        refused(latent, "multiples of 64 pixels: got height 72, use 64 or 128")

    def test_a_latent_of_another_size_than_the_picture(self, bench, refused):
        message = r"encoded to latents of \(4, 8, 8\).*latent to sample is \(4, 8, 16\).*SVD Conditioning the latent"
        refused(bench.empty(size=128, height=64), message)

    def test_a_prompt_in_the_place_of_the_picture(self, bench, refused):
        """Of another width than CLIP's features, and of the same."""
        prompt = Workbench().text()
        assert prompt[0][0].shape[-1] == 16
        message = "features of 32 numbers: got 16 numbers a token. Connect SVD Conditioning"
        refused(bench.empty(), message, positive=prompt, negative=prompt)
        same = [[torch.zeros(1, 77, 32), {}]]
        refused(
            bench.empty(), "starts from a picture: connect SVD Conditioning", positive=same, negative=same
        )
