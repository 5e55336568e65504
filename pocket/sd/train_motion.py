"""Trains the pocket motion module on clips; the base is frozen, noise runs linearly in beta (AnimateDiff, stage 2)."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..detector import read_motion
from ..optimizers import BlockOptimizer
from ..shapes import MOTIONS
from ..tokens import Vocabulary
from ..training import Averaged, Plan, mean_of, ramp, train
from .motion import MotionUNet, build_motion
from .parts import TextToStill
from .sampling import Kind, paths_of, sample
from .train_base import YOUNG, Noisy, add_noise, drop_captions, errors_of, trained_base
from .world import FRAMES, Captioned, Subject, all_subjects, captioned, draw_latents, sample_clip

BATCH = 4
PEAK_LR = 3e-3
WARM_UP = 40  # steps
LEAST = 200  # timestep below which each frame shows by itself where its shape is
FITTED = 8  # clips on which the norms start
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 100, 250
FIRST_SEED = 6_000_000


def context_of(base: TextToStill, words: Vocabulary, captions: list[str]) -> Tensor:
    with torch.no_grad():
        return base.context(words.encode(captions))


def noisy_clips(clips: Sequence[Captioned]) -> Noisy:
    return add_noise(draw_latents([shown.clip for shown in clips]), ["linear"] * len(clips), LEAST)


def clip_errors(net: MotionUNet, drawn: Noisy, context_bld: Tensor) -> Tensor:
    """Squared errors of each clip (b,)."""
    frames = drawn.x_bfchw.shape[1]
    times, contexts = (part.repeat_interleave(frames, 0) for part in (drawn.timestep_b, context_bld))
    noise = net(drawn.x_bfchw.flatten(0, 1), times, contexts, frames)
    return errors_of(noise.unflatten(0, (-1, frames)), drawn)


class MotionTraining(Averaged):
    """The motion modules, their running mean and the optimizer, one step at a time."""

    def __init__(self, base: TextToStill, words: Vocabulary) -> None:
        self.base, self.words = base, words
        motion, average = build_motion(), build_motion()
        # a UNet of its own for each: modules hang in it
        self.mean = MotionUNet(copy.deepcopy(base.unet), average)
        self.net = MotionUNet(copy.deepcopy(base.unet), motion)
        self.fit_norms()
        super().__init__(motion, average, BlockOptimizer(motion, motion))

    def fit_norms(self) -> None:
        """Start the modules' norms on the features of some clips."""
        torch.manual_seed(0)
        clips = [captioned(FIRST_SEED + i) for i in range(FITTED)]
        drawn = noisy_clips(clips)
        frames = drawn.x_bfchw.shape[1]
        context = context_of(self.base, self.words, [shown.caption for shown in clips])
        times, contexts = (part.repeat_interleave(frames, 0) for part in (drawn.timestep_b, context))
        self.net.fit_norms(drawn.x_bfchw.flatten(0, 1), times, contexts, frames)

    def step(self, clips: list[Captioned], lr: float, number: int) -> dict[str, float]:
        """One update; returns the loss, also at high noise alone."""
        drawn = noisy_clips(clips)
        captions = drop_captions([shown.caption for shown in clips])
        errors = clip_errors(self.net, drawn, context_of(self.base, self.words, captions))
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
    net: MotionUNet,
    base: TextToStill,
    words: Vocabulary,
    captions: list[str],
    frames: int = FRAMES,
    kind: Kind = "linear",
) -> Tensor:
    """Centres (b, f, 2) of the shapes in sampled clips, in pixels."""
    told, silent = (context_of(base, words, texts) for texts in (captions, [""]))
    z = sample(lambda x, t, c: net(x, t, c, frames), told, silent, kind, frames)
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
    figures = measure(draw_paths(training.mean, training.base, training.words, captions), subjects)
    stills = draw_paths(
        training.mean, training.base, training.words, captions[:4] * 4, 1, "scaled_linear"
    ).unflatten(0, (4, 4))
    figures["jump_alone"] = jump_of(stills.transpose(0, 1)[..., 0, :])
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
