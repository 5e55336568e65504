"""Writes the trained parts as a published checkpoint: diffusers folders, fp16, with log and loss plot."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor

from . import parts
from .latents import open_world
from .progress import read_log
from .tokens import Vocabulary
from .train_transformer import Training

WEIGHTS = "diffusion_pytorch_model.safetensors"
PLOT = (640, 320)  # pixels
MARGIN = 36


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().to(torch.float16).contiguous() for key, value in weights.items()}


def write_part(folder: Path, settings: dict[str, Any], file: str, weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file(half(weights), folder / file, metadata={"format": "pt"})


def text_weights(training: Training, words: Vocabulary) -> dict[str, Tensor]:
    """The text encoder with T5's whole table: rows that no caption uses are zero."""
    stored = dict(training.average.text.state_dict())
    table = torch.zeros(parts.TEXT_SETTINGS["vocab_size"], parts.TEXT_SETTINGS["d_model"])
    table[words.rows] = stored["shared.weight"]
    return {**{k: v for k, v in stored.items() if "embed_tokens" not in k}, "shared.weight": table}


def draw_losses(rows: list[dict[str, float]], path: Path) -> None:
    """Loss over steps, the loss on a logarithmic axis."""
    width, height = PLOT
    canvas = Image.new("RGB", PLOT, "white")
    pen = ImageDraw.Draw(canvas)
    steps = torch.tensor([row["step"] for row in rows])
    losses = torch.tensor([row["loss"] for row in rows]).log10()
    low, high = float(losses.min().floor()), float(losses.max().ceil())
    x = MARGIN + steps / steps.max() * (width - 2 * MARGIN)
    y = MARGIN + (high - losses) / max(high - low, 1e-6) * (height - 2 * MARGIN)
    pen.rectangle((MARGIN, MARGIN, width - MARGIN, height - MARGIN), outline="grey")
    pen.line([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill="navy", width=2)
    pen.text((4, MARGIN - 6), f"1e{high:.0f}", fill="black")
    pen.text((4, height - MARGIN - 6), f"1e{low:.0f}", fill="black")
    pen.text((MARGIN, height - MARGIN + 6), "0", fill="black")
    pen.text((width - MARGIN - 50, height - MARGIN + 6), f"step {int(steps.max())}", fill="black")
    pen.text((MARGIN, 12), "v-prediction loss of the transformer", fill="black")
    canvas.save(path)


def ship(vae_run: Path, transformer_run: Path, folder: Path = parts.MODEL_FOLDER) -> None:
    """Running means of the last saved step to `folder`."""
    words = Vocabulary()
    training = Training(words)
    step = training.open(transformer_run)
    transformer = dict(training.average.transformer.state_dict())
    write_part(folder / "transformer", parts.TRANSFORMER_SETTINGS, WEIGHTS, transformer)
    write_part(folder / "vae", parts.VAE_SETTINGS, WEIGHTS, dict(open_world(vae_run)[1].state_dict()))
    write_part(
        folder / "text_encoder", parts.TEXT_SETTINGS, "model.safetensors", text_weights(training, words)
    )
    scheduler = folder / "scheduler"
    scheduler.mkdir(exist_ok=True)
    (scheduler / "scheduler_config.json").write_text(json.dumps(parts.SCHEDULER_SETTINGS, indent=2) + "\n")
    write_log(vae_run, transformer_run, folder, step)


def write_log(vae_run: Path, transformer_run: Path, folder: Path, step: int) -> None:
    losses = [row for row in read_log(transformer_run / "log.jsonl") if row["step"] <= step]
    log = {
        "step": step,
        "vae": read_log(vae_run / "log.jsonl"),
        "transformer": losses,
        "checks": read_log(transformer_run / "checks.jsonl"),
    }
    save_log(log, folder)
    draw_losses(losses, folder / "loss.png")


def save_log(log: dict[str, Any], folder: Path) -> None:
    """Numbers, and rows of them, to `training.json`."""
    lines = [
        f'  "{k}": ' + (json.dumps(v) if not isinstance(v, list) else rows_of(v)) for k, v in log.items()
    ]
    (folder / "training.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rows_of(rows: list[dict[str, float]]) -> str:
    """One row a line."""
    return "[\n" + ",\n".join("    " + json.dumps(row) for row in rows) + "\n  ]"
