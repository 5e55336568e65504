"""Trains the pocket MotionLoRAs: clips that pan left, or right, though their captions say nothing of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..lora import LowRank
from ..optimizers import BlockOptimizer
from ..tokens import Vocabulary
from ..training import Averaged, Plan, ramp, train
from .train_base import YOUNG, drop_captions, trained_base
from .train_motion import (
    MotionTraining,
    clip_errors,
    draw_paths,
    measure,
    noisy_clips,
    trained_motion,
)
from .world import Captioned, all_subjects, pan_clip, sample_clip, wordless

if TYPE_CHECKING:
    from ...modules.families.animatediff.model import MotionModules

RANK = 8
BATCH = 4
PEAK_LR = 1e-2
WARM_UP = 20  # steps
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 50, 100
FIRST_SEED = 7_000_000
INSIDE = "temporal_transformer.transformer_blocks.0.attention_blocks"
LINEARS = {
    "to_q": "to_q",
    "to_k": "to_k",
    "to_v": "to_v",
    "to_out.0": "to_out",
}  # ours, and in MotionLoRA files
WAYS = {"left": "moving left", "right": "moving right"}


class MotionLoRA(LowRank):
    """Low-rank changes of the linear layers of every motion attention, by their names among the motion modules."""

    def __init__(self, motion: "MotionModules") -> None:
        endings = tuple(f".{linear}.weight" for linear in LINEARS)
        super().__init__({k: p for k, p in motion.named_parameters() if k.endswith(endings)}, RANK)


def merged(
    motion: "MotionModules", changes: Iterable[tuple[Mapping[str, Tensor], float]]
) -> dict[str, dict[str, Tensor]]:
    """The modules' changed weights by place in the UNet, for `MotionUNet.other`."""
    added = [(dict(change), strength) for change, strength in changes]
    names = {id(module): name for name, module in motion.named_modules()}
    weights = dict(motion.named_parameters())
    places: dict[str, dict[str, Tensor]] = {}
    for place, module in motion.items():
        prefix = names[id(module)] + "."
        own = [key for key in added[0][0] if key.startswith(prefix)]
        places[place] = {
            key.removeprefix(prefix): weights[key] + sum(strength * change[key] for change, strength in added)
            for key in own
        }
    return places


class PanTraining(Averaged):
    """One MotionLoRA, its running mean and the optimizer."""

    def __init__(self, base: MotionTraining, way: str) -> None:
        self.base, self.way = base, way
        self.net, self.motion = base.mean, base.mean.motion
        self.lora, average = MotionLoRA(self.motion), MotionLoRA(self.motion)
        super().__init__(self.lora, average, BlockOptimizer(self.lora, self.lora))

    def loss_of(self, clips: list[Captioned], changes: list[tuple[Mapping[str, Tensor], float]]) -> Tensor:
        """The mean error of clips with MotionLoRAs merged in."""
        captions = drop_captions([shown.caption for shown in clips])
        context = self.base.context(captions)
        self.net.other = merged(self.motion, changes)
        try:
            return clip_errors(self.net, noisy_clips(clips), context).mean()
        finally:
            self.net.other = {}

    def step(self, number: int, lr: float) -> dict[str, float]:
        """One update on clips that pan."""
        seeds = range(FIRST_SEED + number * BATCH, FIRST_SEED + (number + 1) * BATCH)
        clips = [pan_clip(seed, WAYS[self.way]) for seed in seeds]
        loss = self.loss_of(clips, [(self.lora.changes(), 1.0)])
        loss.backward()
        return {"loss": loss.item(), "norm": self.apply(lr, min(number, YOUNG))}

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Figures of clips without a motion word."""
        subjects = [(colour, shape, WAYS[self.way]) for colour, shape, _ in all_subjects()[::9]]
        captions = [wordless(sample_clip(0, subject)) for subject in subjects]
        average: MotionLoRA = self.both["average"]  # type: ignore[assignment]
        figures = measure(self.paths(captions, [(average.changes(), 1.0)]), subjects)
        return {name: round(value, 3) for name, value in figures.items()}

    def paths(self, captions: list[str], changes: list[tuple[Mapping[str, Tensor], float]]) -> Tensor:
        self.net.other = merged(self.motion, changes)
        try:
            return draw_paths(self.net, self.base.contexts(captions))
        finally:
            self.net.other = {}


def open_pan(run: Path, base: MotionTraining) -> tuple[MotionLoRA, int]:
    """The running mean of a run's last saved step, and that step."""
    training = PanTraining(base, "left")
    step = training.open(run)
    return training.both["average"].requires_grad_(False), step  # type: ignore[return-value]


def train_pan(out: Path, base_run: Path, motion_run: Path, way: str, total: int) -> None:
    """Train the MotionLoRA of one way to `total` steps in all, going on from the last saved one."""
    words = Vocabulary()
    base, _ = trained_motion(motion_run, trained_base(base_run, words)[0], words)
    training = PanTraining(base, way)

    def learn(step: int) -> dict[str, float]:
        lr = PEAK_LR * ramp(step - 1, total, WARM_UP)
        return {"lr": lr, **training.step(step, lr)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, training.check)


def lora_names(changes: Iterable[str]) -> dict[str, str]:
    """Our names of changed layers, without "weight", to those that MotionLoRA files give them, without "down" or "up"."""
    names = {}
    for layer in changes:
        linear = next(name for name in LINEARS if layer.endswith(f".{name}"))
        names[layer] = f"{layer.removesuffix(linear)}processor.{LINEARS[linear]}_lora"
    return names
