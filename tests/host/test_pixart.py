"""PixArt Loader and EasyAnimate v1's motion module among the host's own nodes."""

import pytest
import torch

from kinetograph.tests.host.workbench import OWN, Workbench, relative, run
from kinetograph.tests.tiny_pixart import FRAMES, SIZE

FOLDER = "Diffusion_Transformer/tiny-pixart"
MODULE = "Motion_Module/tiny-easyanimate-mm.safetensors"


class PixArtBench(Workbench):
    """A tiny PixArt, with motion and without."""

    def pixart(self, model=FOLDER, **changes):
        """A fresh (MODEL, CLIP, VAE)."""
        choice = {"model": model, "text_encoder": OWN, "vae": OWN, "weight_dtype": "fp32"}
        choice |= {"personalized": "none", "captions": "lower case", **changes}
        return run(self.ours["PixArtLoader"], **choice)

    def move(self, model, module=MODULE, **changes):
        told = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
        return run(self.ours["MotionModuleApply"], model=model, motion_module=module, **{**told, **changes})[
            0
        ]

    def clip(self, frames=FRAMES, width=SIZE, height=SIZE, seed=0):
        generator = torch.Generator().manual_seed(seed)
        samples = torch.zeros(frames, 4, height // 8, width // 8)
        return {"samples": samples, "generator": generator}


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return PixArtBench()


def sample(bench, model, clip, latent, **changes):
    words, silent = (run(bench.host.CLIPTextEncode, clip=clip, text=text)[0] for text in ("A Red circle", ""))
    told = {"seed": 7, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return run(
        bench.host.KSampler,
        model=model,
        positive=words,
        negative=silent,
        latent_image=latent,
        **{**told, **changes},
    )[0]["samples"]


def test_makes_pictures_and_clips(bench):
    model, clip, vae = bench.pixart()
    latent = {"samples": torch.zeros(FRAMES, 4, SIZE // 8, SIZE // 8)}
    stills = sample(bench, model, clip, latent)
    moving = sample(bench, bench.move(model), clip, latent)
    assert stills.isfinite().all() and moving.isfinite().all()
    assert relative(moving, stills) > 1e-3
    frames = run(bench.host.VAEDecode, vae=vae, samples={"samples": moving})[0]
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
