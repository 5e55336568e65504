"""The host and this pack in one process: nodes called one after another, as the host calls them.

Nothing is cached between calls, so a second run of a node really is one.
"""

import asyncio
import inspect

import torch

OWN = "from the model's folder"
FAMILY = "cogvideox"
SVD, SVD_OWN = "SVD/tiny-svd.safetensors", "from the checkpoint"


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


class SVDWorkbench(Workbench):
    """The same around a tiny SVD: frames lie on the batch axis, a picture takes the place of the prompts."""

    FRAMES, SIZE = 3, 64

    def svd(self, name=SVD):
        """(MODEL, CLIP_VISION, VAE) in fp32, the same for all tests: nobody may leave a trace on them."""
        if name not in self._loaded:
            loader = self.ours["SVDLoader"]
            assert loader.validate_inputs(name, SVD_OWN, SVD_OWN) is True
            choice = {"model": name, "image_encoder": SVD_OWN, "vae": SVD_OWN, "weight_dtype": "fp32"}
            self._loaded[name] = run(loader, **choice)
        return self._loaded[name]

    def empty(self, frames=FRAMES, size=SIZE, clips=1, height=None):
        asked = {"width": size, "height": height or size, "num_frames": frames, "batch_size": clips}
        return run(self.ours["VideoLatent"], family="svd", **asked)[0]

    def picture(self, count=1, width=SIZE, height=None, seed=0):
        """8-bit pictures in 0..1, (count, h, w, 3)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (count, height or width, width, 3), generator=generator) / 255

    def condition(self, latent, image=None, parts=SVD, **changes):
        """(positive, negative) of SVDConditioning."""
        _, vision, vae = self.svd(parts)
        chosen = {"clip_vision": vision, "vae": vae, "latent": latent, "fps": 7, "motion_bucket_id": 127}
        chosen |= {"noise_aug_strength": 0.02, "seed": 3, "fit": "crop"}
        chosen["image"] = self.picture() if image is None else image
        return run(self.ours["SVDConditioning"], **{**chosen, **changes})

    def settings(self, model, latent, **changes):
        if "positive" not in changes:
            changes["positive"], changes["negative"] = self.condition(latent)
        return super().settings(model, latent, **{"scheduler": "karras", **changes})

    def decode(self, latent, samples, parts=SVD, chunk=0, overlap=0):
        """Frames (f, h, w, 3) of every clip."""
        given = {"vae": self.svd(parts)[2], "latent": {**latent, "samples": samples}}
        return run(self.ours["VAEDecodeChunked"], chunk=chunk, overlap=overlap, **given)[0]


class Seen:
    """Records what reaches the network of a MODEL of ours; `model` is the clone to sample with."""

    def __init__(self, model):
        from comfy.patcher_extension import WrappersMP

        self.calls = []
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_seen", self)

    def __call__(self, executor, x, timestep, context, *args, **conds):
        self.calls.append({"x": x.clone(), "context": context.clone(), **conds})
        return executor(x, timestep, context, *args, **conds)


def per_frame(low, high):
    """The guidance input that rises from the first frame to the last."""
    return {"guidance": "per-frame linear", "min_cfg": low, "max_cfg": high}


def relative(ours, theirs):
    """Largest difference as a share of the largest value."""
    assert ours.shape == theirs.shape
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()
