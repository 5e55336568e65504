"""The host and this pack in one process: nodes called one after another, as the host calls them.

Nothing is cached between calls, so a second run of a node really is one.
"""

import asyncio
import inspect

import torch

OWN = "from the model's folder"
FAMILY = "cogvideox"


def run(kind, **inputs):
    """The outputs of one node of the host or of ours, under inference mode as in the queue.

    Inputs that this version of the host does not have yet are left out.
    """
    with torch.inference_mode():
        if not hasattr(kind, "execute"):
            return getattr(kind(), kind.FUNCTION)(**inputs)
        known = inspect.signature(kind.execute).parameters
        return kind.execute(**{name: value for name, value in inputs.items() if name in known}).args


class Workbench:
    """Tiny models, prompts and latents at hand, and the two samplers with the same settings."""

    def __init__(self):
        import nodes

        import kinetograph

        async def classes():
            extension = await kinetograph.comfy_entrypoint()
            await extension.on_load()
            return await extension.get_node_list()

        self.host = nodes
        self.ours = {cls.__name__: cls for cls in asyncio.run(classes())}
        self._loaded = {}

    def load(self, variant="5B", weight_dtype="fp32", model=None):
        """A fresh (MODEL, CLIP, VAE)."""
        name = model or f"CogVideo/tiny-{variant}"
        parts = OWN if model is None else "CogVideo/tiny-5B"
        choice = {"model": name, "text_encoder": parts, "vae": parts, "weight_dtype": weight_dtype}
        return run(self.ours["CogVideoXLoader"], **choice)

    def shared(self, variant="5B"):
        """(MODEL, CLIP, VAE), the same for all tests: nobody may leave a trace on them."""
        if variant not in self._loaded:
            self._loaded[variant] = self.load(variant)
        return self._loaded[variant]

    def text(self, prompt="a red circle moving left", variant="5B"):
        return run(self.host.CLIPTextEncode, clip=self.shared(variant)[1], text=prompt)[0]

    def empty(self, frames=9, size=64):
        latent = self.ours["VideoLatent"]
        return run(latent, family=FAMILY, width=size, height=size, num_frames=frames, batch_size=1)[0]

    def clip(self, frames=9, size=64, seed=0):
        """Latents of a clip that never was, unscaled as a VAE gives them."""
        latent = self.empty(frames, size)
        noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(seed))
        return {**latent, "samples": noise}

    def settings(self, model, latent, **changes):
        chosen = {
            "model": model,
            "positive": self.text(),
            "negative": self.text(""),
            "seed": 7,
            "steps": 3,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 1.0,
        }
        return {**chosen, **changes}, latent

    def ksampler(self, model, latent, cfg=6.0, **changes):
        """Samples of the host's KSampler."""
        inputs, latent = self.settings(model, latent, **changes)
        return run(self.host.KSampler, latent_image=latent, cfg=cfg, **inputs)[0]["samples"]

    def sampler(self, model, latent, cfg=6.0, guidance=None, preview=False, **changes):
        """Samples of our VideoSampler at the same settings."""
        inputs, latent = self.settings(model, latent, **changes)
        inputs["guidance"] = guidance or {"guidance": "constant", "cfg": cfg}
        return run(self.ours["VideoSampler"], latent=latent, preview=preview, **inputs)[0]["samples"]


def relative(ours, theirs):
    """Largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()
