"""From what a training gave to a file that the pack's own nodes, and others, load."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...families.family import Size
from ...weights.errors import shown
from ..recipe import PartChoice
from . import lora, weights
from .notes import Notes, model_hash
from .storing import HEADER_BYTES, store

# their own dtype, whatever the others are stored in: rounded they are other numbers
EXACT = (lora.ALPHA, ".pos_encoder.pe")
# EasyAnimate's tables are made anew by everybody, and are half of the file
COARSE = ".attn_temporal."


@dataclass(frozen=True)
class Outcome:
    """What came out of a training."""

    # id of the network's family
    family: str
    part: PartChoice
    # the weights that were trained, by the network's names; of a LoRA `<layer>.lora_down` and `<layer>.lora_up`
    trained: Mapping[str, Tensor]
    # the network as it was, by the same names: weights and tables
    state: Mapping[str, Tensor]
    # of the network, or of EasyAnimate's motion modules; None for AnimateDiff
    config: Any = None
    # width and height in pixels, frames, of the clips
    size: Size | None = None


def contents(outcome: Outcome) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors of the file, as they were trained, what its readers look for in its metadata).

    ValueError where the outcome is none that a file of its kind could hold.
    """
    choice, network = outcome.part, list(outcome.state)
    if choice.name in ("lora", "motion_lora", "domain_adapter"):
        pairs, alpha = lora.pairs_of(outcome.trained), choice.alpha
        if choice.name == "motion_lora":
            return lora.motion_lora(pairs, alpha, choice.layers == "all")
        if choice.name == "domain_adapter":
            return lora.domain_adapter(pairs, alpha, network), {}
        if choice.dialect == "PEFT":
            return lora.peft(pairs, alpha, outcome.family)
        return lora.kohya(pairs, alpha, network), {}
    state = {**outcome.state, **outcome.trained}
    if choice.name == "motion_module":
        return weights.motion_module(state, outcome.config, outcome.size)
    if choice.name == "exvideo":
        return weights.exvideo(state, outcome.config, outcome.size)
    return weights.whole(outcome.family, state, outcome.config)


def write(
    path: Path,
    outcome: Outcome,
    notes: Notes,
    dtype: torch.dtype = torch.bfloat16,
    over: bool = False,
) -> Path:
    """Write the file of an outcome; returns its path.

    `over` replaces a file of that name. ValueError for numbers that are not finite, for a name that is taken, and for a
    disk that is too full. Nothing is left behind then.
    """
    tensors, metadata = contents(outcome)
    if outcome.part.name == "motion_module":
        weights.check_begun(tensors)
    stored = {key: stored_as(path.name, key, value, dtype) for key, value in tensors.items()}
    metadata = {**notes.metadata(), **metadata}
    if any(key.endswith(lora.ALPHA) for key in stored):
        metadata |= {**notes.kohya(), "sshs_model_hash": model_hash(stored)}
    return store(path, stored, metadata, over)


def stored_as(name: str, key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as it goes into a file; ValueError unless all of its numbers are finite there."""
    value = value.detach().cpu()
    exact = key.endswith(EXACT) and COARSE not in key
    result = (value if exact else value.to(dtype)).contiguous()
    if not result.isfinite().all():
        cause = (
            f"numbers beyond {dtype}: choose bf16"
            if value.isfinite().all()
            else "no finite numbers: its training failed"
        )
        raise ValueError(f"{name} is not written: {shown(key)} holds {cause}.")
    return result


def num_bytes(outcome: Outcome, dtype: torch.dtype = torch.bfloat16) -> int:
    """How large the file of an outcome is, but for its notes; also before the first step."""
    tensors, _ = contents(replace(outcome, trained=_shapes(outcome.trained), state=_shapes(outcome.state)))
    return sum(value.numel() * dtype.itemsize + HEADER_BYTES for value in tensors.values())


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of these shapes without numbers; of weights that processes share, the whole shapes."""
    return {key: torch.empty(value.shape, dtype=value.dtype, device="meta") for key, value in tensors.items()}
