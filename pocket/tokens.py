"""Captions as the host's T5 tokenizer cuts them, over the few rows of the table that captions ever use."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .parts import ROOT, TEXT_TOKENS
from .shapes import all_subjects, sample_clip

PAD, END = 0, 1


def tokenizer_folder() -> Path:
    """The T5 tokenizer that ComfyUI ships: in COMFYUI_PATH, else in the one that dev.py fetched."""
    hosts = [Path(os.environ["COMFYUI_PATH"])] if "COMFYUI_PATH" in os.environ else []
    hosts += sorted((ROOT / ".cache").glob("comfyui-*"), reverse=True)
    for host in hosts:
        folder = host / "comfy" / "text_encoders" / "t5_tokenizer"
        if folder.is_dir():
            return folder
    raise ValueError(
        "No ComfyUI with its T5 tokenizer was found. Set COMFYUI_PATH or run `python dev.py demo`."
    )


def all_captions() -> list[str]:
    return [sample_clip(0, subject).caption for subject in all_subjects()]


class Vocabulary:
    """Maps captions to places in a small table; `rows` are the places' rows in T5's own."""

    def __init__(self) -> None:
        from transformers import T5TokenizerFast

        self.tokenizer = T5TokenizerFast.from_pretrained(str(tokenizer_folder()))
        used = {i for caption in all_captions() for i in self.tokenizer(caption).input_ids}
        self.rows = sorted(used | {PAD, END})
        self.place = {row: i for i, row in enumerate(self.rows)}

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Places of the tokens, padded: (b, TEXT_TOKENS)."""
        rows = [self.tokenizer(caption).input_ids for caption in captions]
        padded = [(row + [PAD] * TEXT_TOKENS)[:TEXT_TOKENS] for row in rows]
        return torch.tensor([[self.place[i] for i in row] for row in padded])
