"""API prompts of trainings for tests: a data set of the pocket worlds, a training of a few steps, what comes of it."""

from kinetograph.pocket import datasets
from kinetograph.tests.host.graphs import node

OWN, CHECKPOINT = "from the model's folder", "from the checkpoint"
POCKET = {
    "cog": node(
        "KinetographCogVideoXLoader",
        model="CogVideo/pocket-cogvideox",
        text_encoder=OWN,
        vae=OWN,
        weight_dtype="auto",
    ),
    "svd": node(
        "KinetographSVDLoader",
        model="SVD/pocket-svd.safetensors",
        image_encoder=CHECKPOINT,
        vae=CHECKPOINT,
        weight_dtype="auto",
    ),
    "sd": node("KinetographPocketLoader", model="SD/pocket-sd.safetensors"),
    "pixart": node(
        "KinetographPixArtLoader",
        model="Diffusion_Transformer/pocket-pixart.safetensors",
        text_encoder="SD/pocket-sd.safetensors",
        vae="SD/pocket-sd.safetensors",
        weight_dtype="auto",
        captions="lower case",
        personalized="none",
    ),
}
# what a loader gives beside its MODEL
BESIDE = {
    "cog": {"clip": 1, "vae": 2},
    "svd": {"clip_vision": 1, "vae": 2},
    "sd": {"clip": 1, "vae": 2},
    "pixart": {"clip": 1, "vae": 2},
}
DATA = {
    "format": "auto",
    "width": 64,
    "height": 64,
    "frames": 5,
    "pace": "every n-th frame",
    "pace.stride": 1,
    "sizes": "one size",
    "sizes.crop": "centre",
    "random_frames": "none",
    "camera": "none",
    "flip": False,
    "masks": "none",
    "further": "usual",
}
# widgets of each part beside its rate
PARTS = {
    "lora": {"part.rank": 4, "part.alpha": 4.0, "part.layers": "attention", "part.dialect": "kohya"},
    "motion_lora": {"part.rank": 4, "part.layers": "attention"},
    "domain_adapter": {"part.rank": 4},
}
TRAIN = {
    "steps": 3,
    "seed": 0,
    "learning": "adamw",
    "learning.batch": 1,
    "learning.weight_decay": 0.01,
    "learning.schedule": "constant",
    "learning.warm_up": 0,
    "learning.clip": 1.0,
    "learning.ema": 0.0,
    "learning.loss": "published",
    "learning.motion_sub": 0.0,
    "machine": "auto",
    "machine.save_every": 500,
    "samples": "off",
}
SAMPLES = {"samples": "on", "samples.every": 2, "samples.steps": 2, "samples.cfg": 3.0, "samples.prompt": ""}


def write_data(base, name, world="shapes", count=2):
    """A folder of a pocket world below the input folder; its name."""
    folder = base / "input" / name
    if not folder.exists():
        datasets.write_folder(world, folder, count)
    return name


def data(folder, **changes):
    return node("KinetographTrainingData", folder=folder, **{**DATA, **changes})


def training(kind="cog", folder="shapes", name="run", part="lora", lr=1e-3, model=None, clip=None, **changes):
    """Loader, data set and Train Video Model; `clip` are widgets of Training Data."""
    beside = {socket: [kind, slot] for socket, slot in BESIDE[kind].items()}
    return {
        kind: POCKET[kind],
        "data": data(folder, **(clip or {})),
        "train": node(
            "KinetographTrainVideoModel",
            model=model or [kind, 0],
            data=["data", 0],
            part=part,
            name=name,
            **{**beside, "part.lr": lr, **PARTS.get(part, {}), **TRAIN, **changes},
        ),
    }


def saved(model=None, run=None, filename="", strength=1.0):
    linked = {} if model is None else {"model": model}
    return node(
        "KinetographSaveTrained", run=run or ["train", 3], filename=filename, strength=strength, **linked
    )


def motion(model="sd"):
    """Motion Module Apply with the pocket's."""
    return node(
        "KinetographMotionModuleApply",
        model=[model, 0],
        motion_module="animatediff_models/pocket-motion.safetensors",
        beta_schedule="as trained",
        strength=1.0,
        version="from the file",
        num_frames=0,
    )


def sampled(model, name, kind="cog", prompt="a red circle moving left"):
    """Nodes, each with a name in front, that sample a short clip of a MODEL and save its frames."""
    parts = {
        "positive": node("CLIPTextEncode", clip=[kind, 1], text=prompt),
        "negative": node("CLIPTextEncode", clip=[kind, 1], text=""),
        "latent": node(
            "KinetographVideoLatent",
            model=model,
            family="cogvideox",
            width=64,
            height=64,
            num_frames=5,
            batch_size=1,
        ),
        "sampler": node(
            "KinetographVideoSampler",
            model=model,
            positive=[f"{name}_positive", 0],
            negative=[f"{name}_negative", 0],
            latent=[f"{name}_latent", 0],
            seed=1,
            steps=2,
            guidance="constant",
            sampler_name="ddim",
            scheduler="trailing",
            denoise=1.0,
            preview=False,
            **{"guidance.cfg": 3.0},
        ),
        "decode": node("VAEDecode", samples=[f"{name}_sampler", 0], vae=[kind, 2]),
        "save": node("SaveImage", images=[f"{name}_decode", 0], filename_prefix=name),
    }
    return {f"{name}_{part}": made for part, made in parts.items()}


def shown(source, slot=0):
    """A text on the page."""
    return node("PreviewAny", source=[source, slot])
