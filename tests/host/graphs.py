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


def picture_to_video(
    picture, frames=3, size=64, steps=2, seed=0, model="SVD/tiny-svd.safetensors", **sampler
):
    """SVD from a picture of the input folder to a latent, as its own pipeline samples."""
    parts = {"image_encoder": "from the checkpoint", "vae": "from the checkpoint", "weight_dtype": "fp32"}
    numbers = {"fps": 7, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "seed": 3, "fit": "crop"}
    asked = {"width": size, "height": size, "num_frames": frames, "batch_size": 1}
    guidance = {"guidance": "per-frame linear", "guidance.min_cfg": 1.0, "guidance.max_cfg": 3.0}
    schedule = {"sampler_name": "euler", "scheduler": "edm", "denoise": 1.0, "preview": False}
    return {
        "picture": node("LoadImage", image=picture),
        "loader": node("KinetographSVDLoader", model=model, **parts),
        "latent": node("KinetographVideoLatent", family="svd", **asked),
        "condition": node(
            "KinetographSVDConditioning",
            clip_vision=["loader", 1],
            vae=["loader", 2],
            image=["picture", 0],
            latent=["latent", 0],
            **numbers,
        ),
        "sampler": node(
            "KinetographVideoSampler",
            model=["loader", 0],
            positive=["condition", 0],
            negative=["condition", 1],
            latent=["latent", 0],
            seed=seed,
            steps=steps,
            **{**guidance, **schedule, **sampler},
        ),
    }


def with_chunked_frames(graph, **choices):
    """Decode with our own node and save every frame as a picture."""
    chosen = {"vae": ["loader", 2], "latent": ["sampler", 0], "chunk": 0, "overlap": 0, **choices}
    return {
        **graph,
        "decode": node("KinetographVAEDecodeChunked", **chosen),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="frames"),
    }


def with_frames(graph):
    """Decode with the host's own VAEDecode and save every frame as a picture."""
    return {
        **graph,
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["loader", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="frames"),
    }
