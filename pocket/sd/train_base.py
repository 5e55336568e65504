"""Trains the pocket base: text encoder and UNet, on photos, by epsilon."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..optimizers import BlockOptimizer
from ..tokens import Vocabulary
from ..training import Averaged, Plan, mean_of, ramp, train
from .hearing import hear_unet, word_of
from .parts import TextToStill, start_unet
from .sampling import Kind, noise_process, paths_of, sample
from .world import all_subjects, draw_latents, photo, sample_clip, wordless

BATCH = 64
PEAK_LR = 2e-3
WARM_UP = 60  # steps
DROP = 0.1  # part of the captions left out, for guidance
# t = 1000 (1 - u ** HIGH_NOISE): where a shape goes is settled at high noise, which "linear" has more of by itself
HIGH_NOISE: dict[Kind, float] = {"scaled_linear": 3.0, "linear": 1.3}
BENT = (
    0.3  # part of the photos with the motion module's noise levels, so that the base is no stranger to them
)
MOST_WEIGHT = 20.0
HEARING = 0.1  # weight of how well the motion words can be told from the features
YOUNG = 300  # the running mean never grows older than after so many steps
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 100, 500
FIRST_SEED = 5_000_000


@dataclass(frozen=True)
class Noisy:
    """Latents at unit variance (b, f, c, h, w), their noise, and the level and timestep of each row."""

    x_bfchw: Tensor
    noise_bfchw: Tensor
    sigma_b: Tensor
    timestep_b: Tensor


def add_noise(x0_bfchw: Tensor, kinds: list[Kind], least: int = 0) -> Noisy:
    """One level a row, from timestep `least` on, noise of its own for each frame; `kinds` names the rows' tables."""
    b = len(x0_bfchw)
    powers = torch.tensor([HIGH_NOISE[kind] for kind in kinds])
    t = (least + (1 - torch.rand(b) ** powers) * (1000 - least)).long().clamp(0, 999)
    tables: dict[Kind, Tensor] = {kind: noise_process(kind).sigmas().float() for kind in set(kinds)}
    sigma = torch.stack([tables[kind][i] for kind, i in zip(kinds, t, strict=True)])
    noise, process = torch.randn_like(x0_bfchw), noise_process("linear")
    return Noisy(process.scaled(process.noisy(x0_bfchw, noise, sigma), sigma), noise, sigma, t)


def errors_of(noise: Tensor, drawn: Noisy) -> Tensor:
    """Squared errors of each row, of epsilon, weighed as v's would be up to `MOST_WEIGHT`: x0 counts, too."""
    errors = (noise - drawn.noise_bfchw).square().flatten(1).mean(1)
    return errors * (drawn.sigma_b.square() + 1).clamp(max=MOST_WEIGHT)


def drop_captions(captions: list[str]) -> list[str]:
    dropped = (torch.rand(len(captions)) < DROP).tolist()
    return ["" if gone else caption for gone, caption in zip(dropped, captions, strict=True)]


class BaseTraining(Averaged):
    """Text encoder and UNet, their running mean and the optimizer, one step at a time."""

    def __init__(self, words: Vocabulary) -> None:
        self.words = words
        self.model, self.average = TextToStill(words), TextToStill(words)
        start_unet(self.model.unet)
        self.hearing = hear_unet(self.model.unet)
        super().__init__(
            self.model, self.average, BlockOptimizer(self.model, self.model.unet, convolutions=True)
        )

    def step(self, seeds: list[int], lr: float, number: int) -> dict[str, float]:
        """One update on the photos of these seeds; returns the loss, also at high noise alone."""
        photos = [photo(seed) for seed in seeds]
        bent = (torch.rand(len(seeds)) < BENT).tolist()
        drawn = add_noise(
            draw_latents([p.clip for p in photos], 1), ["linear" if b else "scaled_linear" for b in bent]
        )
        captions = drop_captions([p.caption for p in photos])
        ids = self.words.encode(captions)
        noise = self.model.unet(drawn.x_bfchw.flatten(0, 1), drawn.timestep_b, self.model.context(ids))
        errors = errors_of(noise[:, None], drawn)
        heard = self.hearing.loss(torch.tensor([word_of(caption) for caption in captions]))
        (errors.mean() + HEARING * heard).backward()
        norm = self.apply(lr, min(number, YOUNG))
        high = mean_of(errors, drawn.timestep_b >= 700)
        return {"loss": errors.mean().item(), "high": high, "heard": heard.item(), "norm": norm}


def trained_base(run: Path, words: Vocabulary) -> tuple[TextToStill, int]:
    """The running mean of the last saved step, and that step."""
    training = BaseTraining(words)
    step = training.open(run)
    return training.average.requires_grad_(False).eval(), step  # type: ignore[return-value]


@torch.no_grad()
def check(model: nn.Module, words: Vocabulary) -> dict[str, float]:
    """Stills of all subjects: where their motion words put them, how far they lie apart, how large they are."""
    told, silent = (model.context(words.encode(texts)) for texts in (checked_captions(), [""]))
    return figures_of(sample(lambda x, t, c: model.unet(x, t, c), told, silent, "scaled_linear"))


def checked_captions() -> list[str]:
    """Those of all subjects, then some without a motion word."""
    subjects = all_subjects()
    return [sample_clip(0, s).caption for s in subjects] + [
        wordless(sample_clip(0, s)) for s in subjects[::5]
    ]


def figures_of(z_bfchw: Tensor) -> dict[str, float]:
    """What stills of `checked_captions` show, as scaled latents."""
    z, paths = z_bfchw, paths_of(z_bfchw)[:, 0]
    true = draw_latents([sample_clip(7, s) for s in all_subjects()], 1)
    row = {f"{word}_{axis}": paths[i:90:5, k].mean().item() for i, word, k, axis in PLACES}
    row["spread"] = paths.std(0).mean().item()
    row["rms"], row["true_rms"] = (v.square().mean().sqrt().item() for v in (z, true))
    return {name: round(value, 3) for name, value in row.items()}


PLACES = ((0, "left", 0, "x"), (1, "right", 0, "x"), (2, "up", 1, "y"), (3, "down", 1, "y"))


def train_base(out: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    words = Vocabulary()
    training = BaseTraining(words)

    def learn(step: int) -> dict[str, float]:
        lr = PEAK_LR * ramp(step - 1, total, WARM_UP)
        seeds = [FIRST_SEED + step * BATCH + i for i in range(BATCH)]
        return {"lr": lr, **training.step(seeds, lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training.average, words))
