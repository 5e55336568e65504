"""API prompts of Video Continue over the pocket models, and what its files show."""

import av
import torch
from PIL import Image

from kinetograph.pocket.detector import centroids, foreground
from kinetograph.pocket.scenes import Scene, draw_scenes
from kinetograph.tests.host.graphs import node

SEGMENT, OVERLAP = 17, 4
START = "continued_start.png"
SCENE = Scene("red", "circle", "moving right", 11.5, 22 / 16, (21.0, 32.0))
BACK_AND_FORTH = ("moving right", "moving left")


def write_start(folder):
    """The first frame of SCENE into a server's input folder."""
    folder.mkdir(exist_ok=True)
    pixels = (draw_scenes([SCENE])[0][0] * 255).round().byte()
    Image.fromarray(pixels.numpy()).save(folder / START)


def plan(kind="open end", segments=2, **changes):
    parts = {
        "segments": segments,
        "overlap": 0,
        "hold_colours": 1.0,
        "seeds": "",
        "keep_segments": "keep all",
    }
    return {"plan": kind, **{f"plan.{name}": value for name, value in {**parts, **changes}.items()}}


def sampling(seed=1, steps=2, cfg=2.0, **changes):
    parts = {
        "cfg": cfg,
        "steps": steps,
        "seed": seed,
        "sampler_name": "ddim",
        "scheduler": "trailing",
        **changes,
    }
    return {"sampling": "constant", **{f"sampling.{name}": value for name, value in parts.items()}}


def file(prefix="video/continued", **changes):
    parts = {"frame_rate": 8.0, "filename_prefix": prefix, "pix_fmt": "bgr0", **changes}
    return {"file": "video/ffv1-mkv", **{f"file.{name}": value for name, value in parts.items()}}


def continued(
    choices,
    motions=("moving right",),
    model="pocket-cogvideox-fun-inp.safetensors",
    frames=SEGMENT,
    **sockets,
):
    """A CogVideoX of the pocket goes on from the picture START; `choices` are those of plan, sampling and file."""
    own = {
        "text_encoder": "CogVideo/pocket-cogvideox",
        "vae": "CogVideo/pocket-cogvideox",
        "weight_dtype": "auto",
    }
    size = {"width": 64, "height": 64, "num_frames": frames, "batch_size": 1}
    prompts = {
        f"p{i}": node("CLIPTextEncode", clip=["loader", 1], text=f"a red circle {motion}")
        for i, motion in enumerate(motions)
    }
    links = {f"prompts.prompt{i}": [f"p{i}", 0] for i in range(len(motions))}
    given = {"negative": ["negative", 0], "start_images": ["start", 0], **sockets}
    return {
        "loader": node("KinetographCogVideoXLoader", model=f"CogVideo/{model}", **own),
        "negative": node("CLIPTextEncode", clip=["loader", 1], text=""),
        "latent": node("KinetographVideoLatent", family="cogvideox", **size),
        "start": node("LoadImage", image=START),
        **prompts,
        "continue": node(
            "KinetographVideoContinue", model=["loader", 0], vae=["loader", 2], latent=["latent", 0],
            **links, **{name: link for name, link in given.items() if link}, **choices,
        ),
    }  # fmt: skip


def read_frames(path):
    """(f, h, w, 3) in 0..1 of a lossless file."""
    with av.open(str(path)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).float() / 255


def steps_between(frames):
    """How much each frame differs from the one before, in 255."""
    return (frames[1:] - frames[:-1]).abs().mean((1, 2, 3)) * 255


def centres(frames):
    cover = foreground(frames)
    return centroids(cover * (cover > 0.2))
