"""What fits a card of so many GiB, as counted by `memory.py`; figures in benchmarks/results/README.md."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .memory import GIB, Predicted
from .recipe import Recipe

# of a card for its driver, its kernels and what an allocator wastes
RESERVED = int(1.2 * GIB)
Card = Literal["12 GB", "16 GB", "24 GB", "80 GB"]


@dataclass(frozen=True)
class Preset:
    """How trainings are set on one size of card: the most that fits each."""

    gib: int
    # an optimiser that keeps a byte where AdamW keeps four
    eight_bit: bool
    # the most of a LoRA
    rank: int
    layers: Literal["attention", "all"]
    # what fits, for people: a job of benchmarks/training_memory.py and its GiB
    jobs: Mapping[str, float]


PRESETS: Mapping[Card, Preset] = {
    "12 GB": Preset(
        12,
        True,
        64,
        "attention",
        {
            "MotionLoRA r64 v2, 512x512, 16 frames": 5.5,
            "AnimateDiff module v2, 256x256, 16 frames, 4 clips": 7.9,
            "SVD LoRA r64 over time, 1024x576, 14 frames": 8.2,
            "CogVideoX 2B LoRA r64 attention, 720x480, 49 frames": 6.2,
            "EasyAnimate module, 512x512, 16 frames": 10.3,
        },
    ),
    "16 GB": Preset(
        16,
        True,
        64,
        "attention",
        {
            "SVD LoRA r64 over time, 1024x576, 25 frames": 12.3,
            "EasyAnimate module, 512x512, 16 frames, 2 clips": 11.9,
        },
    ),
    "24 GB": Preset(
        24,
        True,
        128,
        "all",
        {
            "CogVideoX 5B LoRA r64 attention, 720x480, 49 frames": 16.7,
            "CogVideoX 5B LoRA r128 all, 720x480, 49 frames": 20.9,
            "Fun 5B LoRA r128 all, 512x512, 49 frames": 19.2,
            "EasyAnimate module, 512x512, 80 frames": 18.5,
            "ExVideo, 256x256, 128 frames": 14.7,
        },
    ),
    "80 GB": Preset(
        80,
        False,
        128,
        "all",
        {
            "CogVideoX 5B LoRA r128 all, 720x480, 49 frames": 23.8,
            "ExVideo, 512x512, 128 frames": 37.9,
        },
    ),
}


def apply(recipe: Recipe, card: Card) -> Recipe:
    """A recipe with the settings of a card; what it trains and on which data stays, no larger than the card takes."""
    preset = PRESETS[card]
    part, steps = recipe.part, recipe.steps
    if part.layers == "all" and preset.layers == "attention":
        part = replace(part, layers="attention")
    if part.rank > preset.rank:
        # alpha / rank, by which a LoRA acts, stays
        part = replace(part, rank=preset.rank, alpha=part.alpha * preset.rank / part.rank)
    if preset.eight_bit and steps.optimizer == "adamw":
        steps = replace(steps, optimizer="adamw8bit")
    steps = replace(steps, at_once=1)
    return replace(recipe, part=part, steps=steps, machine=replace(recipe.machine, checkpointing=True))


def check_fits(predicted: Predicted, card: int, recipe: Recipe) -> str:
    """A sentence for people on a prediction and a card of so many bytes; what to do where it does not fit."""
    told = f"This training holds {predicted.total / GIB:.1f} GiB"
    room = card - RESERVED
    if predicted.total <= room:
        return f"{told}, of {card / GIB:.1f} on the card."
    advice = " or ".join(_remedies(predicted, recipe, predicted.total - room))
    return f"{told}, and the card of {card / GIB:.1f} leaves {max(0, room) / GIB:.1f}: {advice}."


def _remedies(predicted: Predicted, recipe: Recipe, lack: int) -> list[str]:
    """What saves memory and is not set yet, the cheapest first."""
    ways = []
    if not recipe.machine.checkpointing:
        ways.append("set machine.checkpointing")
    if recipe.steps.at_once > 1:
        ways.append("set steps.at_once to 1")
    # three quarters of its state go
    if recipe.steps.optimizer == "adamw" and 3 * predicted.optimizer >= lack:
        ways.append('choose steps.optimizer "adamw8bit"')
    if recipe.part.layers == "all":
        ways.append('choose part.layers "attention"')
    return [*ways, "train on smaller or shorter clips"]
