"""What scores of clips that the real ComfyUI makes share: graphs, readings, figures, command line."""

import argparse
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tools.client import Client

from ..detector import read_clip, read_motion
from ..shapes import COLOURS, MOTIONS, SHAPES, SIZE
from ..svd.measures import path_of
from ..svd.report import draw_sheet, write_score
from .parts import FOLDER
from .world import FRAMES, PATH, STILL, Subject

ASKED_PATH = sum(PATH) / 2  # pixels
AT_MOST = ("jump_ratio",)
SHOWN = range(0, FRAMES, 3)
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """How clips are drawn in the host."""

    host: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str


@dataclass(frozen=True)
class Places:
    """Where figures go, and the models that are scored: pocket/models, or a copy of it with other weights."""

    out: Path
    models: Path


@dataclass(frozen=True)
class Order:
    """One clip to be made: its caption, the way it is to go, and the motion module in use; None: the base alone."""

    subject: Subject
    caption: str
    module: str | None
    seed: int


# what is posted for an order
Graph = Callable[[Order, Settings], dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def motion_node(model: str, module: str) -> dict[str, Any]:
    """A motion module on the model of another node."""
    return node(
        "KinetographMotionModuleApply",
        model=[model, 0],
        motion_module=module,
        beta_schedule="as trained",
        strength=1.0,
        version="from the file",
        num_frames=0,
    )


def sampled(model: str, order: Order, settings: Settings) -> dict[str, Any]:
    """Prompts of the node "loader", the host's own sampler on the model of another, its decoder, files without loss."""
    return {
        "positive": node("CLIPTextEncode", clip=["loader", 1], text=order.caption),
        "negative": node("CLIPTextEncode", clip=["loader", 1], text=""),
        "latent": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=FRAMES),
        "sampler": node(
            "KSampler",
            model=[model, 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=order.seed,
            steps=settings.steps,
            cfg=settings.cfg,
            sampler_name=settings.sampler,
            scheduler=settings.scheduler,
            denoise=1.0,
        ),
        "decoder": node("VAEDecode", vae=["loader", 2], samples=["sampler", 0]),
        "files": node("SaveImage", images=["decoder", 0], filename_prefix="score"),
    }


def fetch(client: Client, graph: dict[str, Any]) -> Tensor:
    """Frames (f, h, w, 3) in 0..1 that the host makes."""
    result = client.run(graph, timeout=900)
    files = result.files()
    if result.status != "success" or len(files) != FRAMES:
        raise RuntimeError(
            f"ComfyUI made {len(files)} of {FRAMES} frames ({result.status}): {result.message}"
        )
    pictures = [Image.open(io.BytesIO(client.view(file))).convert("RGB") for file in files]
    return torch.stack([pil_to_tensor(picture) for picture in pictures]).permute(0, 2, 3, 1) / 255


def subjects_of(ways: list[str], each: int) -> list[Subject]:
    """So many subjects of every way, colours and shapes in turn."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [(*pairs[(7 * i + 5 * k) % len(pairs)], way) for k, way in enumerate(ways) for i in range(each)]


def captions_of(subject: Subject) -> list[str]:
    """The caption of a subject, with its motion word and without."""
    colour, shape, motion = subject
    return [f"a {colour} {shape} {motion}", f"a {colour} {shape}"]


def read_row(order: Order, frames_fhwc: Tensor) -> dict[str, Any]:
    """What one clip shows."""
    path, seen = path_of(frames_fhwc), read_clip(frames_fhwc)
    way = path[-2:].mean(0) - path[:2].mean(0)
    along = float(way @ torch.tensor(MOTIONS[order.subject[2]], dtype=torch.float32))
    return {
        "caption": order.caption,
        "asked": order.subject[2],
        "motion": read_motion(path),
        "along": round(along, 2),
        "way": round(float(way.norm()), 2),
        "jump": round(path.diff(dim=0).norm(dim=-1).mean().item(), 3),
        "colour": seen.colour == order.subject[0],
        "shape": seen.shape == order.subject[1],
    }


def mean_of(rows: list[dict[str, Any]], key: str) -> float:
    return sum(float(row[key]) for row in rows) / max(1, len(rows))


def right_part(rows: list[dict[str, Any]]) -> float:
    return round(sum(row["motion"] == row["asked"] for row in rows) / len(rows), 3)


def sum_up_motion(alone: list[dict[str, Any]], motion: list[dict[str, Any]]) -> dict[str, float]:
    """What a motion module makes of the base's clips."""
    moving = [row for row in motion if row["asked"] != STILL]
    covered = sorted(row["along"] / ASKED_PATH for row in moving)
    return {
        "jump_alone": round(mean_of(alone, "jump"), 3),
        "jump": round(mean_of(motion, "jump"), 3),
        "jump_ratio": round(mean_of(motion, "jump") / mean_of(alone, "jump"), 3),
        "right_way": right_part(motion),
        "right_way_moving": right_part(moving),
        "covered": round(sum(covered) / len(covered), 3),
        "clips_that_cover_70_percent": round(sum(part >= 0.7 for part in covered) / len(covered), 3),
        "right_colour": round(mean_of(motion, "colour"), 3),
        "right_shape": round(mean_of(motion, "shape"), 3),
    }


def strips_of(rows: list[dict[str, Any]], made: list[Tensor]) -> list[tuple[str, list[Tensor]]]:
    return [
        (f"{row['caption']}: {row['way']:.0f} px {row['motion']}", [frames[f] for f in SHOWN])
        for row, frames in zip(rows, made, strict=True)
    ]


def earlier_rows(folder: Path, parts: Sequence[str]) -> Rows:
    """The rows of the parts that an earlier score in a folder holds."""
    file = folder / "score.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {part: known[part] for part in parts if part in known}


def make_part(
    client: Client, part: str, orders: list[Order], graph: Graph, settings: Settings, folder: Path
) -> list[dict[str, Any]]:
    """Make the clips of a part, read them, and draw their contact sheet."""
    made = [fetch(client, graph(order, settings)) for order in orders]
    rows = [read_row(order, frames) for order, frames in zip(orders, made, strict=True)]
    draw_sheet(strips_of(rows, made), 3, folder / f"score_{part.replace(' ', '_')}.png")
    return rows


def conclude(
    figures: dict[str, float],
    rows: Rows,
    goals: Mapping[str, float],
    settings: Settings,
    folder: Path,
    name: str = "score.json",
) -> bool:
    """Print and write; whether every goal is reached."""
    good = all(
        figures[name] <= goal if name in AT_MOST else figures[name] >= goal
        for name, goal in goals.items()
        if name in figures
    )
    print(json.dumps(figures | {"good": good}, indent=1))
    write_score(folder / name, figures | rows | {"goals": goals, "settings": asdict(settings)})
    return good


def main(
    run: Callable[[Settings, Places, int, tuple[str, ...]], bool],
    said: str | None,
    parts: Sequence[str],
    usual: Settings,
    folder: Path,
) -> int:
    """Read the command line, `usual` being what it may leave out, and score: 0 where every goal is reached."""
    reader = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--parts", nargs="+", choices=parts, default=parts)
    reader.add_argument("--each", type=int, default=8, help="clips of every way")
    reader.add_argument("--steps", type=int, default=usual.steps)
    reader.add_argument("--cfg", type=float, default=usual.cfg)
    reader.add_argument("--sampler", default=usual.sampler)
    reader.add_argument("--scheduler", default=usual.scheduler)
    reader.add_argument("--out", type=Path, default=folder)
    reader.add_argument(
        "--models", type=Path, default=FOLDER, help="a copy of pocket/models with other weights"
    )
    asked = reader.parse_args()
    settings = Settings(usual.host, asked.steps, asked.cfg, asked.sampler, asked.scheduler)
    return 0 if run(settings, Places(asked.out, asked.models), asked.each, tuple(asked.parts)) else 1
