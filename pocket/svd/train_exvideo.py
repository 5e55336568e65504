"""Trains the pocket ExVideo patch: the 16 temporal branches alone, on clips four times as long as the UNet knows."""

import copy
from pathlib import Path

import torch
from torch import nn

from ..optimizers import BlockOptimizer
from ..parts import pack
from ..training import Averaged, Plan, train
from .sampling import Course
from .train_unet import (
    Sample,
    attend_in_float32,
    check,
    clips_of_step,
    draw_sample,
    errors_of,
    lr_at,
    settings,
    trained_unet,
)
from .vision import open_vision
from .world import FRAMES, LONG_FRAMES

BATCH = 1
GENTLE = 0.5  # of the learning rate that the UNet was trained with
ACCUMULATE = 2  # clips to a step
FIRST_STEP = 1_000_000  # seeds that the UNet did not see
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 10, 50, 200


def build_branches() -> nn.Module:
    """The pack's own ExVideo branches at pocket size, weights unset."""
    pack()
    from kinetograph.modules.families.svd.config import SVDConfig
    from kinetograph.modules.families.svd.exvideo import ExVideoBranches

    return ExVideoBranches(SVDConfig(**settings()), attention=attend_in_float32, dtype=torch.float32)


@torch.no_grad()
def start_branches(branches: nn.Module, unet: nn.Module) -> None:
    """The UNet's own temporal layers, a convolution that changes nothing, positions stretched over the frames."""
    from kinetograph.modules.layers.positions import sinusoid

    branches.start_from(unet)
    for _, branch in branches.items():
        table = branch.positional.embeddings
        stretched = torch.arange(len(table)) * (FRAMES - 1) / (LONG_FRAMES - 1)
        table.copy_(sinusoid(stretched, table.shape[1]))


def put_in(unet: nn.Module, branches: nn.Module) -> nn.Module:
    """The UNet with the branches in place of its own; changes the UNet."""
    branches.put_into(unet)
    return unet


class LongTraining(Averaged):
    """A frozen UNet, the branches to be trained in it, and their running mean in a UNet of its own."""

    def __init__(self, unet: nn.Module) -> None:
        self.branches, self.average = build_branches(), build_branches()
        start_branches(self.branches, unet)
        optimizer = BlockOptimizer(self.branches, self.branches, convolutions=True)
        super().__init__(self.branches, self.average, optimizer)
        frozen = unet.requires_grad_(False)
        self.long_unet = put_in(copy.deepcopy(frozen), self.branches)
        self.average_unet = put_in(copy.deepcopy(frozen), self.average)

    def step(self, samples: list[Sample], lr: float, number: int) -> dict[str, float]:
        """One update from several samples, one after the other."""
        losses = [self._learn(drawn, len(samples)) for drawn in samples]
        return {"loss": sum(losses) / len(losses), "norm": self.apply(lr, number)}

    def _learn(self, drawn: Sample, share: int) -> float:
        loss = errors_of(self.long_unet, drawn)[1].mean()
        (loss / share).backward()
        return loss.item()


def train_exvideo(out: Path, unet_run: Path, vision_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    vision, training = open_vision(vision_run), LongTraining(trained_unet(unet_run)[0])

    def learn(step: int) -> dict[str, float]:
        clips = clips_of_step(FIRST_STEP + step, BATCH * ACCUMULATE, still=0.05)
        samples = [draw_sample([clip], LONG_FRAMES, vision, drop=0.0) for clip in clips]
        lr = GENTLE * lr_at(step - 1, total)
        return {"lr": lr, **training.step(samples, lr, step)}

    course = Course(LONG_FRAMES, 12, (1.0, 1.0))
    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training.average_unet, vision, course, count=4))
