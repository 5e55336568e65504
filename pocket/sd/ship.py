"""Writes the trained parts as files in the published layouts, fp16."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..parts import TEXT_SETTINGS
from ..ship import half
from ..tokens import Vocabulary
from .parts import MODEL, TextToStill

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."


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
    weights = {prefix + key: value for prefix, part in parts.items() for key, value in half(part).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file, metadata={"format": "pt"})
