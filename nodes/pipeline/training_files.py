"""What a training leaves behind: its file, and the host's LORA_MODEL where it trained a LoRA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...modules.families.easyanimate.config import GridConfig
from ...modules.training.files.lora import host_lora as lora_of
from ...modules.training.files.notes import Notes
from ...modules.training.files.storing import check_room as check_free
from ...modules.training.files.writing import Outcome, num_bytes, write
from ...modules.training.loop import Training
from ...modules.training.recipe import Recipe

WORDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
LORAS = ("lora", "domain_adapter")


def outcome_of(
    training: Training, recipe: Recipe, trained: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> Outcome:
    """What was trained, with all that its file says beside it; `network` is the state of the network around it."""
    subject, data = training.subject, recipe.data
    config: Any = subject.config
    size = (data.width, data.height, data.frames)
    if recipe.part.name == "motion_module" and config is not None:
        config = GridConfig(config.num_layers, config.width, native_size=size)
    return Outcome(subject.family, recipe.part, trained, network, config, size)


def check_room(folder: Path, training: Training, recipe: Recipe) -> None:
    """ValueError unless there is room for a state, one beside it, and the file."""
    trained = {name: parameter.detach() for name, parameter in training.trained.items()}
    numbers = sum(parameter.numel() for parameter in trained.values())
    # weights, two moments and a running mean, twice while a state takes another's place
    states = 2 * 4 * numbers * (4 if recipe.steps.ema else 3)
    check_free(
        folder,
        states + num_bytes(outcome_of(training, recipe, trained, training.subject.network.state_dict())),
    )


def save(
    file: Path,
    training: Training,
    recipe: Recipe,
    trained: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> Path:
    """Write the result in place of an earlier one of this run, in 16 bit."""
    notes = Notes(
        recipe,
        training.done,
        data=str(more.get("data", "")),
        num_items=len(training.examples),
        precision=WORDS[training.dtype],
        base=training.subject.label,
        more={key: value for key, value in more.items() if key != "data"},
    )
    dtype = torch.float16 if training.dtype == torch.float32 else training.dtype
    return write(file, outcome_of(training, recipe, trained, network), notes, dtype, over=True)


def host_lora(recipe: Recipe, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The host's LORA_MODEL; empty where the part is none that its loader puts on a MODEL."""
    return lora_of(dict(trained), recipe.part.alpha) if recipe.part.name in LORAS else {}
