"""API prompts for tests: node id -> class and inputs, built from the tiny checkpoints."""


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def loader(variant="5B", model=None, **changes):
    inputs = {
        "model": model or f"CogVideo/tiny-{variant}",
        "text_encoder": "from the model's folder",
        "vae": "from the model's folder",
        "weight_dtype": "auto",
    }
    return node("KinetographCogVideoXLoader", **{**inputs, **changes})


def text_to_video(variant="5B", frames=9, size=64, steps=2, seed=0, **sampler):
    """Loader to latent; append what should happen to ["sampler", 0]."""
    return {
        "loader": loader(variant),
        "positive": node("CLIPTextEncode", clip=["loader", 1], text="a red circle moving left"),
        "negative": node("CLIPTextEncode", clip=["loader", 1], text=""),
        "latent": node(
            "KinetographVideoLatent",
            family="cogvideox",
            width=size,
            height=size,
            num_frames=frames,
            batch_size=1,
        ),
        "sampler": node(
            "KinetographVideoSampler",
            **{
                "model": ["loader", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent": ["latent", 0],
                "seed": seed,
                "steps": steps,
                "guidance": "constant",
                "guidance.cfg": 6.0,
                "sampler_name": "ddim",
                "scheduler": "simple",
                "denoise": 1.0,
                "preview": False,
                **sampler,
            },
        ),
    }


def with_frames(graph):
    """Decode with the host's own VAEDecode and save every frame as a picture."""
    return {
        **graph,
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["loader", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="frames"),
    }
