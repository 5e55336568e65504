"""Context Windows on the real host: every window sees its own frames, prompt and pictures, and nothing else."""

import itertools
import types

import pytest
import torch

from kinetograph.modules.sampling.windows import WindowPlan
from kinetograph.tests.host.workbench import Seen, SVDWorkbench, Workbench, relative, run

STATIC = {"schedule": "standard_static", "overlap": 4, "fuse_method": "flat"}
LOOP = {"schedule": "looped_uniform", "overlap": 4, "stride": 1, "closed_loop": True, "fuse_method": "pyramid"}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


@pytest.fixture(scope="module")
def svd(comfy_here):
    return SVDWorkbench()


def windows(bench, model, length, prompts=(), freenoise=False, **schedule):
    """The MODEL of Context Windows."""
    named = {f"prompt{number}": prompt for number, prompt in enumerate(prompts)}
    chosen = {"length": length, "freenoise": freenoise, "schedule": {**STATIC, **schedule}, "prompts": named}
    return run(bench.ours["ContextWindows"], model=model, **chosen)[0]


def noise_like(latent, seed=7):
    return torch.randn(latent["samples"].shape, generator=torch.manual_seed(seed))


class Prediction:
    """What the host predicts at the first step from noise alone, cond and uncond before guidance."""

    def __init__(self, bench, model, noise, **conds):
        import comfy.sample

        self.model = model.clone()
        self.model.set_model_sampler_post_cfg_function(self)
        with torch.inference_mode():
            told = {"steps": 1, "cfg": 6.0, "sampler_name": "euler", "scheduler": "simple", "seed": 7}
            comfy.sample.sample(
                self.model, noise, latent_image=torch.zeros_like(noise), disable_pbar=True, **told, **conds
            )

    def __call__(self, args):
        self.cond, self.uncond = args["cond_denoised"], args["uncond_denoised"]
        return args["denoised"]


class TestSmoke:
    def test_cog(self, bench):
        model, latent = bench.shared()[0], bench.empty(33)
        assert latent["samples"].shape[2] == 9
        out = bench.ksampler(windows(bench, model, 17), latent)
        assert out.isfinite().all()
        for mode in ("standard_uniform", "looped_uniform", "standard_truncated", "batched"):
            out = bench.ksampler(windows(bench, model, 17, schedule=mode, fuse_method="relative"), latent)
            assert out.isfinite().all()
        out = bench.ksampler(windows(bench, model, 17, **LOOP, freenoise=True, prompts=[bench.text("a"), bench.text("b")]), latent)
        assert out.isfinite().all()

    def test_svd(self, svd):
        model, latent = svd.svd()[0], svd.empty(7)
        out = svd.sampler(windows(svd, model, 3, overlap=1, prompts=[svd.condition(latent)[0]]), latent)
        assert out.isfinite().all()
