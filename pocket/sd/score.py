"""`python -m pocket.sd.score`: what the real ComfyUI makes of captions, as the detector reads it.

The base alone, with the motion module, and with each MotionLoRA and both at a half. Writes score.json and contact sheets
beside this file. MotionLoRAs are merged into a copy of the module (W + strength * up @ down) before ComfyUI opens it.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tools import hosts
from tools.client import Client
from tools.commands import python_path
from tools.server import Server

from ..detector import read_clip, read_motion
from ..shapes import COLOURS, MOTIONS, SHAPES, SIZE
from ..svd.measures import path_of
from ..svd.report import draw_sheet, write_score
from .parts import FOLDER, MODEL, MOTION, PAN_LEFT, PAN_RIGHT
from .world import FRAMES, PATH, STILL, Subject

MERGED = "animatediff_models/{}.safetensors"
LORAS: dict[str, tuple[tuple[Path, float], ...]] = {
    "pan left": ((PAN_LEFT, 1.0),),
    "pan right": ((PAN_RIGHT, 1.0),),
    "both at a half": ((PAN_LEFT, 0.5), (PAN_RIGHT, 0.5)),
}
ASKED_PATH = sum(PATH) / 2  # pixels
GOALS = {
    "jump_ratio": 0.2,
    "right_way": 0.85,
    "covered": 0.7,
    "pan_left": 0.9,
    "pan_right": 0.9,
    "both_still": 0.9,
}
AT_MOST = ("jump_ratio",)
PARTS = ("alone", "motion", *LORAS)
SHOWN = range(0, FRAMES, 3)


@dataclass(frozen=True)
class Settings:
    """How clips are drawn in the host."""

    host: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str


HERE = Path(__file__).resolve().parent
USUAL = Settings(f"ComfyUI {hosts.NEWEST}", 20, 2.0, "euler", "normal")


@dataclass(frozen=True)
class Order:
    """One clip to be made: its caption, the way it is to go, and the motion module in use; None: the base alone."""

    subject: Subject
    caption: str
    module: str | None
    seed: int


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph_for(order: Order, settings: Settings) -> dict[str, Any]:
    """Loader and motion module, then `sampled`."""
    graph = sampled("motion" if order.module else "loader", order, settings)
    graph["loader"] = node("KinetographPocketLoader", model=f"SD/{MODEL.name}")
    if order.module:
        graph["motion"] = motion_node("loader", order.module)
    return graph


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


def write_merged(loras: Mapping[str, tuple[tuple[Path, float], ...]], models: Path) -> dict[str, str]:
    """A copy of the motion module for each choice of MotionLoRAs; the names under which nodes list them."""
    names = {}
    for choice, files in loras.items():
        weights = {key: value.float() for key, value in load_file(MOTION).items()}
        for path, strength in files:
            lora = {key: value.float() for key, value in load_file(path).items()}
            for key in [key for key in lora if key.endswith(".up.weight")]:
                layer = key.replace(".processor", "").replace("_lora.up.weight", "")
                layer = layer.replace(".to_out", ".to_out.0")
                down = lora[key.replace(".up.", ".down.")]
                weights[f"{layer}.weight"] += strength * lora[key] @ down
        names[choice] = MERGED.format(f"merged-{choice.replace(' ', '-')}")
        path = models / names[choice]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path)
    return names


def subjects_of(ways: list[str], each: int) -> list[Subject]:
    """So many subjects of every way, colours and shapes in turn."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [(*pairs[(7 * i + 5 * k) % len(pairs)], way) for k, way in enumerate(ways) for i in range(each)]


def captions_of(subject: Subject) -> list[str]:
    """The caption of a subject, with its motion word and without."""
    colour, shape, motion = subject
    return [f"a {colour} {shape} {motion}", f"a {colour} {shape}"]


def orders_of(part: str, names: Mapping[str, str], each: int) -> list[Order]:
    """The clips of a part: `alone`, `motion`, or one of `LORAS`."""
    if part in ("alone", "motion"):
        module = f"animatediff_models/{MOTION.name}" if part == "motion" else None
        subjects = subjects_of(list(MOTIONS), each)
        return [Order(s, captions_of(s)[0], module, 1000 + i) for i, s in enumerate(subjects)]
    way = {"pan left": "moving left", "pan right": "moving right"}.get(part, STILL)
    subjects = subjects_of([way], 4 * each)
    # half of the captions say nothing about motion, the others that the shape stands still
    said = [
        captions_of(s)[1] if i % 2 else captions_of((s[0], s[1], STILL))[0] for i, s in enumerate(subjects)
    ]
    return [
        Order(s, caption, names[part], 2000 + i)
        for i, (s, caption) in enumerate(zip(subjects, said, strict=True))
    ]


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


def sum_up(parts: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The figures that have goals, and some beside them."""
    figures = sum_up_motion(parts["alone"], parts["motion"])
    for part in LORAS:
        rows = parts.get(part)
        if rows:
            name = "both_still" if part.startswith("both") else part.replace(" ", "_")
            figures[name] = right_part(rows)
            figures[f"{part.replace(' ', '_')}_covered"] = round(mean_of(rows, "way") / ASKED_PATH, 3)
    return figures


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


Rows = dict[str, list[dict[str, Any]]]
Graph = Callable[[Order, Settings], dict[str, Any]]


def earlier_rows(folder: Path, parts: Sequence[str] = PARTS) -> Rows:
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
    figures: dict[str, float], rows: Rows, goals: Mapping[str, float], settings: Settings, folder: Path
) -> bool:
    """Print and write; whether every goal is reached."""
    good = all(
        figures[name] <= goal if name in AT_MOST else figures[name] >= goal
        for name, goal in goals.items()
        if name in figures
    )
    print(json.dumps(figures | {"good": good}, indent=1))
    write_score(folder / "score.json", figures | rows | {"goals": goals, "settings": asdict(settings)})
    return good


def score(settings: Settings, folder: Path, each: int, parts: tuple[str, ...]) -> bool:
    """Measure, write, print; whether every goal is reached. Parts that are not measured keep their rows."""
    rows = earlier_rows(folder)
    loras = {choice: files for choice, files in LORAS.items() if choice in parts}
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        names = write_merged(loras, Path(base) / "models")
        with Server(python_path(), hosts.find(), Path(base), models=FOLDER) as server:
            for part in parts:
                orders = orders_of(part, names, each)
                rows[part] = make_part(server.client, part, orders, graph_for, settings, folder)
    return conclude(sum_up(rows), rows, GOALS, settings, folder)


def main(
    run: Callable[[Settings, Path, int, tuple[str, ...]], bool] = score,
    said: str | None = __doc__,
    parts: Sequence[str] = PARTS,
    usual: Settings = USUAL,
    folder: Path = HERE,
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
    asked = reader.parse_args()
    settings = Settings(usual.host, asked.steps, asked.cfg, asked.sampler, asked.scheduler)
    return 0 if run(settings, asked.out, asked.each, tuple(asked.parts)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
