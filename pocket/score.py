"""`python -m pocket.score`: what the real ComfyUI makes of 64 captions, as the detector reads it, and how whole the
drawn shapes are: their IoU with the best fitting ideal one.

Beside it: chance, which for the IoU is a true clip under the two shapes that it does not show, and two ceilings: true
clips, and the VAE's reconstructions of those. Writes score.json and a contact sheet beside the model.
"""

import argparse
import json
import random
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor

from tools import hosts
from tools.client import Client
from tools.commands import python_path
from tools.contact_sheet import read_frames
from tools.prompts import only_node, prompt_node
from tools.server import Server

from .detector import read_clip, wholeness
from .parts import MODEL_FOLDER, ROOT, build_vae
from .shapes import COLOURS, MOTIONS, SHAPES, SIZE, all_subjects, draw, sample_clip

WORKFLOW = ROOT / "workflows" / "api" / "try_cogvideox.json"
COUNT = 64
ASPECTS = ("colour", "shape", "motion")
GOALS = {"colour": 0.95, "shape": 0.85, "motion": 0.90, "iou": 0.90}
CEILING_GOAL = {"shape": 0.95, "iou": 0.95}
CHANCE = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "motion": 1 / len(MOTIONS)}
TILE_FRAMES = (0, 8, 16)
COLUMNS = 8

Subject = tuple[str, str, str]


@dataclass(frozen=True)
class Settings:
    """How clips are drawn in the host."""

    host: str
    steps: int


def chosen_subjects(count: int) -> list[Subject]:
    """So many of the 90, always the same."""
    return random.Random(64).sample(all_subjects(), count)


def graph_for(caption: str, seed: int, settings: Settings) -> dict[str, Any]:
    """The shipped workflow, which takes its size from the model, with another prompt and seed."""
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt_node(graph)["inputs"]["text"] = caption
    sampler = only_node(graph, "KinetographVideoSampler")["inputs"]
    sampler.update({"seed": seed, "steps": settings.steps, "preview": False})
    return graph


def guidance() -> dict[str, Any]:
    """The shipped workflow's."""
    inputs = only_node(json.loads(WORKFLOW.read_text(encoding="utf-8")), "KinetographVideoSampler")["inputs"]
    return {name: value for name, value in inputs.items() if name.startswith("guidance")}


def fetch(client: Client, graph: dict[str, Any], folder: Path) -> Tensor:
    """Frames (f, h, w, 3) in 0..1 of the video file that the host makes of a graph."""
    result = client.run(graph, timeout=600)
    videos = [file for file in result.files() if file["filename"].endswith(".mp4")]
    if result.status != "success" or not videos:
        raise RuntimeError(f"ComfyUI made no video ({result.status}): {result.message}")
    path = folder / "clip.mp4"
    path.write_bytes(client.view(videos[0]))
    frames = [
        torch.frombuffer(bytearray(f.convert("RGB").tobytes()), dtype=torch.uint8)
        for f in read_frames(str(path))
    ]
    return torch.stack(frames).view(-1, SIZE, SIZE, 3) / 255


def generate(subjects: list[Subject], host: Path, settings: Settings) -> list[Tensor]:
    """One clip a subject, through the prompt queue of a ComfyUI started for it."""
    clips = []
    with tempfile.TemporaryDirectory(prefix="kinetograph-score-") as base:
        with Server(python_path(), host, Path(base), models=MODEL_FOLDER.parents[1]) as server:
            for seed, subject in enumerate(subjects):
                graph = graph_for(sample_clip(0, subject).caption, seed, settings)
                clips.append(fetch(server.client, graph, Path(base)))
    return clips


def true_clips(subjects: list[Subject]) -> list[Tensor]:
    """One clip a subject as the world draws it: frames (f, h, w, 3) in 0..1."""
    return [draw(sample_clip(500_000 + i, subject)) for i, subject in enumerate(subjects)]


@torch.no_grad()
def reconstruct(clips: list[Tensor], batch: int = 4) -> list[Tensor]:
    """Clips through the shipped VAE and back: frames (f, h, w, 3) in 0..1."""
    vae = build_vae()
    weights = load_file(MODEL_FOLDER / "vae" / "diffusion_pytorch_model.safetensors")
    vae.load_state_dict({key: value.float() for key, value in weights.items()})
    frames = []
    for start in range(0, len(clips), batch):
        x = torch.stack(clips[start : start + batch]).permute(0, 4, 1, 2, 3) * 2 - 1
        frames.extend((vae.decode(vae.encode(x)).permute(0, 2, 3, 4, 1) / 2 + 0.5).clamp(0, 1))
    return frames


def read_all(clips: list[Tensor], subjects: list[Subject]) -> list[dict[str, Any]]:
    """Caption, reading, verdict and IoU of every clip."""
    rows = []
    for frames, subject in zip(clips, subjects, strict=True):
        seen = asdict(read_clip(frames))
        right = {name: seen[name] == wanted for name, wanted in zip(ASPECTS, subject, strict=True)}
        iou = round(wholeness(frames, subject[1]), 4)
        rows.append({"caption": sample_clip(0, subject).caption, "seen": seen, "right": right, "iou": iou})
    return rows


def rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Parts of the clips that are read right, and their mean IoU."""
    right = {name: sum(row["right"][name] for row in rows) / len(rows) for name in ASPECTS}
    return {name: round(value, 4) for name, value in (right | {"iou": mean_iou(rows)}).items()}


def mean_iou(rows: list[dict[str, Any]]) -> float:
    return sum(row["iou"] for row in rows) / len(rows)


def least_ious(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the clip that is drawn worst, and the mean of each shape."""
    of_shape = {shape: [row for row in rows if shape in row["caption"]] for shape in SHAPES}
    means = {shape: round(mean_iou(own), 4) for shape, own in of_shape.items() if own}
    return {"least": min(row["iou"] for row in rows), **means}


def misread_iou(clips: list[Tensor], subjects: list[Subject]) -> float:
    """Mean IoU of clips with the best fitting shapes of another kind than theirs."""
    found = [
        wholeness(clip, other)
        for clip, subject in zip(clips, subjects, strict=True)
        for other in SHAPES
        if other != subject[1]
    ]
    return sum(found) / len(found)


def draw_sheet(clips: list[Tensor], rows: list[dict[str, Any]], path: Path) -> None:
    """First, middle and last frame of every clip; a red caption where something is wrong."""
    width, height = SIZE * len(TILE_FRAMES) + 4, SIZE + 14
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(clips) // COLUMNS) * height), "black")
    pen = ImageDraw.Draw(sheet)
    for i, (frames, row) in enumerate(zip(clips, rows, strict=True)):
        x, y = i % COLUMNS * width, i // COLUMNS * height
        for k, f in enumerate(TILE_FRAMES):
            pixels = (frames[f] * 255).round().byte().numpy()
            sheet.paste(Image.fromarray(pixels), (x + k * SIZE, y))
        pen.text((x + 2, y + SIZE), row["caption"], fill="white" if all(row["right"].values()) else "red")
    sheet.save(path)


def score(host: Path, settings: Settings, folder: Path, count: int = COUNT) -> bool:
    """Measure, write, print; whether every goal is reached."""
    subjects = chosen_subjects(count)
    true = true_clips(subjects)
    perfect, ceiling = (rates(read_all(clips, subjects)) for clips in (true, reconstruct(true)))
    clips = generate(subjects, host, settings)
    rows = read_all(clips, subjects)
    reached = rates(rows)
    good = all(reached[k] >= v for k, v in GOALS.items()) and all(
        ceiling[k] >= v for k, v in CEILING_GOAL.items()
    )
    figures = {"reached": reached, "goals": GOALS, "ceiling": ceiling, "ceiling_goal": CEILING_GOAL}
    chance = CHANCE | {"iou": misread_iou(true, subjects)}
    figures |= {"true_clips": perfect, "chance": {k: round(v, 4) for k, v in chance.items()}}
    figures |= {"iou": least_ious(rows), "all_goals_reached": good}
    print(json.dumps(figures, indent=2))
    settings_and_clips = {"clips": len(rows), "settings": asdict(settings) | guidance(), "rows": rows}
    (folder / "score.json").write_text(
        json.dumps(figures | settings_and_clips, indent=1) + "\n", encoding="utf-8"
    )
    draw_sheet(clips, rows, folder / "score.png")
    return good


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--steps", type=int, default=50)
    reader.add_argument("--count", type=int, default=COUNT)
    reader.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    asked = reader.parse_args()
    host = hosts.find()
    settings = Settings(f"ComfyUI {hosts.NEWEST}", asked.steps)
    return 0 if score(host, settings, asked.out, asked.count) else 1


if __name__ == "__main__":
    raise SystemExit(main())
