"""Trains the pocket EasyAnimate motion module on clips; the base is frozen."""

import copy
from pathlib import Path

from torch import Tensor, nn

from ..sd.train_motion import ClipTraining, train_clips
from .motion import build_motion, fit_modules
from .parts import TextToPicture
from .text import Captions
from .train_base import trained_base

BATCH = 6
CHECK_EVERY = 500


class MotionPicture(nn.Module):
    """A frozen base with motion modules in its blocks."""

    def __init__(self, base: TextToPicture) -> None:
        super().__init__()
        self.alone, self.base, self.motion = base, copy.deepcopy(base), build_motion()
        self.motion.put_into(self.base.transformer)

    def forward(self, x_nchw: Tensor, timestep_n: Tensor, context_gld: Tensor, frames: int) -> Tensor:
        """Epsilon of clips whose frames lie side by side on the batch axis; 1: the base alone."""
        net = self.alone if frames == 1 else self.base
        return net(x_nchw, timestep_n, context_gld, frames)

    def fit_norms(self, x_nchw: Tensor, timestep_n: Tensor, context_nld: Tensor, frames: int) -> None:
        """Start the modules' norms so that what leaves them has mean 0 and spread 1 in each channel of these clips."""
        fit_modules(self.motion, lambda: self(x_nchw, timestep_n, context_nld, frames))


class GridTraining(ClipTraining):
    """EasyAnimate's modules in the pocket PixArt."""

    kind = still_kind = "pixart"

    def __init__(self, base: TextToPicture, captions: Captions) -> None:
        self.captions = captions
        super().__init__(MotionPicture(base).train(), MotionPicture(base).eval())
        self.both["average"].requires_grad_(False)

    def context(self, captions: list[str]) -> Tensor:
        return self.captions(captions)


def trained_motion(run: Path, base: TextToPicture, captions: Captions) -> tuple[GridTraining, int]:
    """A training whose running mean is that of the last saved step, and that step."""
    training = GridTraining(base, captions)
    step = training.open(run)
    training.both.requires_grad_(False)
    return training, step


def train_motion(out: Path, base_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    captions = Captions()
    base = trained_base(base_run, captions)[0].requires_grad_(False)
    train_clips(out, GridTraining(base, captions), total, BATCH, CHECK_EVERY)
