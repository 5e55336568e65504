"""`python -m pocket.svd.score`: what the real ComfyUI makes of unseen pictures, as the detector reads it.

Eight pictures at eight values of motion_bucket_id each, then eight clips of four times the length with and
without the ExVideo patch. Writes score.json and two contact sheets beside this file.
"""

import argparse
import io
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from tools import hosts
from tools.client import Client
from tools.commands import python_path
from tools.server import Server

from ..train_image import psnr
from .measures import path_of, speed_error, speed_of
from .report import draw_part, sum_up_long, sum_up_short, write_score
from .ship import FOLDER, MODEL, PATCH
from .train_unet import UNSEEN_SEED
from .world import BUCKETS, FRAMES, LONG_FRAMES, SIZE, SlidingClip, all_subjects, draw_frames, sample_clip

PICTURES = 8
BUCKET_IDS = [round(BUCKETS * (i + 0.5) / 8) for i in range(8)]
GOALS = {"first_frame_db": 25.0, "rank_correlation": 0.9, "long_speed_error_ratio": 0.5}
FPS, AUGMENTATION = 7, 0.02


@dataclass(frozen=True)
class Settings:
    """How clips are drawn in the host."""

    host: str
    steps: int
    min_cfg: float
    max_cfg: float
    long_steps: int
    long_cfg: float


@dataclass(frozen=True)
class Order:
    """One clip to be made."""

    clip: SlidingClip
    picture: str  # its name in the host's input folder
    frames: int
    steps: int
    scales: tuple[float, float]
    patched: bool
    seed: int


def chosen_clips() -> list[SlidingClip]:
    """Pictures that no training saw: every motion twice, colours and shapes in turn."""
    subjects = [all_subjects()[(i * 19) % len(all_subjects())] for i in range(PICTURES)]
    return [sample_clip(UNSEEN_SEED + 1000 + i, subject) for i, subject in enumerate(subjects)]


def graph_for(order: Order) -> dict[str, Any]:
    """Loader, picture, conditioning, sampler, decoder and files without loss."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    loaded = "patch" if order.patched else "loader"
    graph = {
        "loader": node(
            "KinetographSVDLoader",
            model=f"SVD/{MODEL.name}",
            image_encoder="from the checkpoint",
            vae="from the checkpoint",
            weight_dtype="auto",
        ),
        "picture": node("LoadImage", image=order.picture),
        "latent": node(
            "KinetographVideoLatent",
            family="svd",
            width=SIZE,
            height=SIZE,
            num_frames=order.frames,
            batch_size=1,
        ),
        "told": node(
            "KinetographSVDConditioning",
            clip_vision=["loader", 1],
            vae=["loader", 2],
            image=["picture", 0],
            latent=["latent", 0],
            fps=FPS,
            motion_bucket_id=int(order.clip.bucket),
            noise_aug_strength=AUGMENTATION,
            seed=order.seed,
            fit="crop",
        ),
        "sampler": node(
            "KinetographVideoSampler",
            model=[loaded, 0],
            positive=["told", 0],
            negative=["told", 1],
            latent=["latent", 0],
            seed=order.seed,
            steps=order.steps,
            guidance="per-frame linear",
            sampler_name="euler",
            scheduler="edm",
            denoise=1.0,
            preview=False,
        ),
        "decoder": node(
            "KinetographVAEDecodeChunked", vae=["loader", 2], latent=["sampler", 0], chunk=0, overlap=2
        ),
        "files": node("SaveImage", images=["decoder", 0], filename_prefix="score"),
    }
    low, high = order.scales
    graph["sampler"]["inputs"] |= {"guidance.min_cfg": low, "guidance.max_cfg": high}
    if order.patched:
        graph["patch"] = node("KinetographExVideoPatch", model=["loader", 0], exvideo=f"SVD/{PATCH.name}")
    return graph


def fetch(client: Client, order: Order) -> Tensor:
    """Frames (f, h, w, 3) in 0..1 that the host makes."""
    result = client.run(graph_for(order), timeout=900)
    files = result.files()
    if result.status != "success" or len(files) != order.frames:
        raise RuntimeError(
            f"ComfyUI made {len(files)} of {order.frames} frames ({result.status}): {result.message}"
        )
    pictures = [Image.open(io.BytesIO(client.view(file))).convert("RGB") for file in files]
    return torch.stack([pil_to_tensor(picture) for picture in pictures]).permute(0, 2, 3, 1) / 255


def first_picture(clip: SlidingClip) -> Tensor:
    """(h, w, 3) in 0..1."""
    return draw_frames(clip, 1)[0].permute(1, 2, 0) / 2 + 0.5


def upload_pictures(client: Client, clips: list[SlidingClip], folder: Path) -> list[str]:
    names = []
    for i, clip in enumerate(clips):
        path = folder / f"picture-{i}.png"
        to_pil_image(first_picture(clip).permute(2, 0, 1)).save(path)
        names.append(client.upload(path))
    return names


def short_orders(clips: list[SlidingClip], names: list[str], settings: Settings) -> list[Order]:
    """Every picture at every bucket."""
    scales = (settings.min_cfg, settings.max_cfg)
    return [
        Order(replace(clip, bucket=float(b)), name, FRAMES, settings.steps, scales, False, 8 * i + j)
        for i, (clip, name) in enumerate(zip(clips, names, strict=True))
        for j, b in enumerate(BUCKET_IDS)
    ]


def long_orders(clips: list[SlidingClip], names: list[str], settings: Settings) -> list[Order]:
    """Each picture at a bucket of its own, without the patch and then with it, from the same noise."""
    scales = (settings.long_cfg, settings.long_cfg)
    return [
        Order(
            replace(clip, bucket=float(b)), name, LONG_FRAMES, settings.long_steps, scales, patched, 100 + i
        )
        for i, (clip, name, b) in enumerate(zip(clips, names, BUCKET_IDS, strict=True))
        for patched in (False, True)
    ]


def read_row(order: Order, frames_fhwc: Tensor) -> dict[str, Any]:
    """What one clip shows."""
    path = path_of(frames_fhwc)
    kept = psnr(frames_fhwc[:1], first_picture(order.clip)[None])
    return {
        "picture": f"{order.clip.colour} {order.clip.shape} {order.clip.motion}",
        "bucket": order.clip.bucket,
        "true_speed": round(order.clip.speed, 3),
        "speed": round(speed_of(path, order.clip), 3),
        "speed_error": round(speed_error(path, order.clip), 3),
        "first_frame_db": round(kept.item(), 2),
    } | ({"patched": order.patched} if order.frames == LONG_FRAMES else {})


def score(settings: Settings, folder: Path, models: Path, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal of the parts is reached."""
    clips, figures = chosen_clips(), {}
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        with Server(python_path(), hosts.find(), Path(base), models=models) as server:
            names = upload_pictures(server.client, clips, Path(base))
            for part in parts:
                orders = (short_orders if part == "short" else long_orders)(clips, names, settings)
                made = [fetch(server.client, order) for order in orders]
                rows = [read_row(order, frames) for order, frames in zip(orders, made, strict=True)]
                short = part == "short"
                figures |= sum_up_short(rows, len(BUCKET_IDS)) if short else sum_up_long(rows)
                figures[part] = rows
                draw_part(part, rows, made, folder)
    goals = {name: goal for name, goal in GOALS.items() if name in figures}
    good = all(
        figures[name] <= goal if name.endswith("ratio") else figures[name] >= goal
        for name, goal in goals.items()
    )
    print(
        json.dumps({k: v for k, v in figures.items() if not isinstance(v, list)} | {"good": good}, indent=1)
    )
    write_score(folder / "score.json", figures | {"goals": GOALS, "settings": asdict(settings)})
    return good


def main() -> int:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--part", choices=("short", "long", "all"), default="all")
    reader.add_argument("--steps", type=int, default=12)
    reader.add_argument("--min-cfg", type=float, default=1.0)
    reader.add_argument("--max-cfg", type=float, default=1.5)
    reader.add_argument("--long-steps", type=int, default=12)
    reader.add_argument("--long-cfg", type=float, default=1.0)
    reader.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    reader.add_argument(
        "--models", type=Path, default=FOLDER.parent, help="a copy of pocket/models with other weights"
    )
    asked = reader.parse_args()
    settings = Settings(
        f"ComfyUI {hosts.NEWEST}",
        asked.steps,
        asked.min_cfg,
        asked.max_cfg,
        asked.long_steps,
        asked.long_cfg,
    )
    parts = ("short", "long") if asked.part == "all" else (asked.part,)
    return 0 if score(settings, asked.out, asked.models, parts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
