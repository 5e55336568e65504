"""Writes the trained parts as files in the published layouts, fp16."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..parts import TEXT_SETTINGS
from ..progress import read_log
from ..ship import half, rows_of
from ..tokens import Vocabulary
from .parts import MODEL, MOTION, PAN_LEFT, PAN_RIGHT, TEXT, UNET, VAE, TextToStill
from .train_base import trained_base
from .train_motion import trained_motion
from .train_pan import WAYS, MotionLoRA, lora_names
from .train_vae import trained_vae

LOG = MODEL.with_suffix(".json")


def text_weights(text: nn.Module, words: Vocabulary) -> dict[str, Tensor]:
    """The text encoder with T5's whole table: rows that no caption uses are zero."""
    stored = {key: value for key, value in text.state_dict().items() if "embed_tokens" not in key}
    table = torch.zeros(TEXT_SETTINGS["vocab_size"], TEXT_SETTINGS["d_model"])
    table[words.rows] = stored["shared.weight"]
    return {**stored, "shared.weight": table}


def write_base(model: TextToStill, vae: nn.Module, words: Vocabulary, file: Path = MODEL) -> None:
    """UNet, TAESD and text encoder to one file."""
    parts = {
        UNET: dict(model.unet.state_dict()),
        VAE: dict(vae.state_dict()),
        TEXT: text_weights(model.text, words),
    }
    weights = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    write_half(weights, file)


def write_motion(motion: nn.Module, file: Path = MOTION) -> None:
    """The motion modules under the names of their published files, which are ours."""
    write_half(dict(motion.state_dict()), file)


def write_half(weights: dict[str, Tensor], file: Path) -> None:
    """A file of fp16 weights."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(half(weights), file, metadata={"format": "pt"})


def write_lora(lora: MotionLoRA, file: Path) -> None:
    """A MotionLoRA under the names of AnimateDiff's own files."""
    weights = {}
    halves = lora.halves()
    for layer, name in lora_names(halves).items():
        down, up = halves[layer]
        weights |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
    write_half(weights, file)


def ship_sd(runs: Path) -> None:
    """Running means of the last saved steps, and the pair of MotionLoRAs."""
    words = Vocabulary()
    base, _ = trained_base(runs / "sd_base", words)
    write_base(base, trained_vae(runs / "sd_encoder", runs / "sd_decoder"), words)
    training, _ = trained_motion(runs / "sd_motion", base, words)
    write_motion(training.both["average"])
    pair = nn.ModuleDict({way: MotionLoRA(training.net.motion) for way in WAYS})
    pair.load_state_dict(torch.load(runs / "sd_pans" / "state.pt", weights_only=True))
    for way, file in (("left", PAN_LEFT), ("right", PAN_RIGHT)):
        write_lora(pair[way], file)  # type: ignore[arg-type]
    names = ("decoder", "encoder", "base", "motion", "pan_left", "pan_right")
    write_log({name: runs / f"sd_{name}" for name in names})


def write_log(parts: Mapping[str, Path]) -> None:
    """Losses of every part and what was seen on the way, one row a line."""
    rows = {name: read_log(run / "log.jsonl") for name, run in parts.items()}
    checks = {f"{name}_checks": read_log(run / "checks.jsonl") for name, run in parts.items()}
    rows |= {name: seen for name, seen in checks.items() if seen}
    lines = [f'  "{name}": {rows_of(part)}' for name, part in rows.items()]
    LOG.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
