"""Trains the pocket motion module on clips; the base is frozen, noise runs linearly in beta (AnimateDiff, stage 2)."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..detector import read_motion
from ..optimizers import BlockOptimizer
from ..shapes import MOTIONS
from ..tokens import Vocabulary
from ..training import Averaged, Plan, mean_of, ramp, train
from .motion import LEAST, MotionUNet, build_motion
from .parts import TextToStill
from .sampling import Kind, paths_of, sample
from .train_base import YOUNG, Noisy, add_noise, drop_captions, errors_of, trained_base
from .world import FRAMES, Captioned, Subject, all_subjects, captioned, draw_latents, sample_clip

BATCH = 4
PEAK_LR = 3e-3
WARM_UP = 40  # steps
FITTED = 8  # clips on which the norms start
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 100, 250
FIRST_SEED = 6_000_000


def noisy_clips(clips: Sequence[Captioned]) -> Noisy:
    return add_noise(draw_latents([shown.clip for shown in clips]), ["linear"] * len(clips), LEAST)


def clip_errors(net: Any, drawn: Noisy, context_bld: Tensor) -> Tensor:
    """Squared errors of each clip (b,)."""
    frames = drawn.x_bfchw.shape[1]
    return errors_of(net(*inputs_of(drawn, context_bld)).unflatten(0, (-1, frames)), drawn)


def inputs_of(drawn: Noisy, context_bld: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """What a denoiser takes of clips whose frames lie side by side: x, timesteps, contexts, frames."""
    frames = drawn.x_bfchw.shape[1]
    times, contexts = (part.repeat_interleave(frames, 0) for part in (drawn.timestep_b, context_bld))
    return drawn.x_bfchw.flatten(0, 1), times, contexts, frames


class MotionTraining(Averaged):
    """Motion modules, their running mean and the optimizer, one step at a time; `net` and `mean` are UNets with them."""

    def __init__(self, base: TextToStill, words: Vocabulary) -> None:
        self.base, self.words = base, words
        # a UNet of its own for each: modules hang in it
        self.net, self.mean = (MotionUNet(copy.deepcopy(base.unet), build_motion()) for _ in range(2))
        torch.manual_seed(0)
        clips = [captioned(FIRST_SEED + i) for i in range(FITTED)]
        context = self.context([shown.caption for shown in clips])
        self.net.fit_norms(*inputs_of(noisy_clips(clips), context))
        super().__init__(self.net.motion, self.mean.motion, BlockOptimizer(self.net.motion, self.net.motion))

    @torch.no_grad()
    def context(self, captions: list[str]) -> Tensor:
        """Text features (b, l, d)."""
        return self.base.context(self.words.encode(captions))

    def contexts(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Text features of captions and of none."""
        return self.context(captions), self.context([""])

    def step(self, clips: list[Captioned], lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise alone."""
        drawn = noisy_clips(clips)
        context = self.context(drop_captions([shown.caption for shown in clips]))
        errors = clip_errors(self.net, drawn, context)
        errors.mean().backward()
        norm = self.apply(lr, min(number, YOUNG))
        high = mean_of(errors, drawn.timestep_b >= 600)
        return {"loss": errors.mean().item(), "high": high, "norm": norm}


def trained_motion(run: Path, base: TextToStill, words: Vocabulary) -> tuple[MotionTraining, int]:
    """A training whose running mean is that of the last saved step, and that step."""
    training = MotionTraining(base, words)
    step = training.open(run)
    training.both.requires_grad_(False)
    return training, step


def draw_paths(
    net: Any, contexts: tuple[Tensor, Tensor], frames: int = FRAMES, kind: Kind = "linear"
) -> Tensor:
    """Centres (b, f, 2) of the shapes in sampled clips, in pixels."""
    z = sample(lambda x, t, c: net(x, t, c, frames), *contexts, kind, frames)
    return paths_of(z)


def jump_of(paths_bf2: Tensor) -> float:
    """Mean distance from one frame's centre to the next one's, in pixels."""
    return paths_bf2.diff(dim=1).norm(dim=-1).mean().item()


def along_of(path_f2: Tensor, motion: str) -> float:
    """Pixels from the first two frames to the last two, along a motion word's direction."""
    way = path_f2[-2:].mean(0) - path_f2[:2].mean(0)
    return float(way @ torch.tensor(MOTIONS[motion], dtype=torch.float32))


def measure(paths_bf2: Tensor, subjects: Sequence[Subject]) -> dict[str, float]:
    """How clips of moving subjects do: part of them that go as asked, how far, and how evenly."""
    right = [read_motion(path) == motion for path, (_, _, motion) in zip(paths_bf2, subjects, strict=True)]
    moving = [(path, s[2]) for path, s in zip(paths_bf2, subjects, strict=True) if any(MOTIONS[s[2]])]
    along = [along_of(path, motion) for path, motion in moving]
    return {
        "right": sum(right) / len(right),
        "along": sum(along) / max(1, len(along)),
        "jump": jump_of(paths_bf2),
    }


def check(training: MotionTraining) -> dict[str, float]:
    """Figures of clips of fifteen subjects, and what the base alone makes of the same words."""
    torch.manual_seed(0)
    subjects = all_subjects()[::6]
    captions = [sample_clip(0, subject).caption for subject in subjects]
    clips = draw_paths(training.mean, training.contexts(captions))
    figures = measure(clips, subjects)
    stills = draw_paths(training.mean, training.contexts(captions[:4] * 4), 1, "scaled_linear")
    figures["jump_alone"] = jump_of(stills.unflatten(0, (4, 4)).transpose(0, 1)[..., 0, :])
    return {name: round(value, 3) for name, value in figures.items()}


def train_motion(out: Path, base_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    words = Vocabulary()
    training = MotionTraining(trained_base(base_run, words)[0], words)

    def learn(step: int) -> dict[str, float]:
        lr = PEAK_LR * ramp(step - 1, total, WARM_UP)
        clips = [captioned(FIRST_SEED + step * BATCH + i) for i in range(BATCH)]
        return {"lr": lr, **training.step(clips, lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training))
