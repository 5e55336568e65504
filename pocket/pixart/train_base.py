"""Trains the pocket PixArt on the photos of the pocket SD, by epsilon; the text encoder is that of the pocket SD, frozen."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..detector import read_clip
from ..optimizers import BlockOptimizer
from ..sd.hearing import Hearing, word_of
from ..sd.parts import open_taesd
from ..sd.sampling import Denoiser, sample
from ..sd.train_base import (
    HEARING,
    YOUNG,
    add_noise,
    checked_captions,
    drop_captions,
    errors_of,
    figures_of,
)
from ..sd.world import Captioned, all_subjects, draw_latents, photo
from ..training import Averaged, Plan, mean_of, ramp, train
from .parts import WIDTH, TextToPicture, start_weights
from .text import Captions

BATCH = 96
PEAK_LR = 2e-3
WARM_UP = 100  # steps
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 50, 200, 500
FIRST_SEED = 5_000_000


def hear_blocks(model: TextToPicture) -> Hearing:
    """At the doors of the motion modules, but for that of the first block: no text was read before it."""
    return Hearing([block.attn_temporal for block in model.transformer.transformer_blocks][1:], WIDTH)


class BaseTraining(Averaged):
    """The transformer, its running mean and the optimizer, one step at a time."""

    def __init__(self, captions: Captions) -> None:
        self.captions = captions
        self.model, self.average = TextToPicture(), TextToPicture().eval()
        start_weights(self.model)
        self.hearing = hear_blocks(self.model)
        optimizer = BlockOptimizer(self.model, self.model.transformer.transformer_blocks)
        super().__init__(self.model, self.average.requires_grad_(False), optimizer)

    def step(self, shown: list[Captioned], lr: float, number: int) -> dict[str, float]:
        """One update on these photos; returns the loss, also at high noise alone."""
        drawn = add_noise(draw_latents([one.clip for one in shown], 1), ["pixart"] * len(shown))
        captions = drop_captions([one.caption for one in shown])
        noise = self.model(drawn.x_bfchw.flatten(0, 1), drawn.timestep_b, self.captions(captions))
        errors = errors_of(noise[:, None], drawn)
        heard = self.hearing.loss(torch.tensor([word_of(caption) for caption in captions]))
        (errors.mean() + HEARING * heard).backward()
        norm = self.apply(lr, min(number, YOUNG))
        high = mean_of(errors, drawn.timestep_b >= 500)
        return {"loss": errors.mean().item(), "high": high, "heard": heard.item(), "norm": norm}


def trained_base(run: Path, captions: Captions) -> tuple[TextToPicture, int]:
    """The running mean of the last saved step, and that step."""
    training = BaseTraining(captions)
    step = training.open(run)
    return training.average, step


@torch.no_grad()
def check(model: Denoiser, captions: Captions, vae: nn.Module) -> dict[str, float]:
    """Stills of all subjects: where their motion words put them, and what the detector reads once they are decoded."""
    told, silent = (captions(texts) for texts in (checked_captions(), [""]))
    z = sample(model, told, silent, "pixart")
    row = figures_of(z)
    seen = [read_clip(frames) for frames in decode(vae, z)]
    asked = [(colour, shape) for colour, shape, _ in all_subjects()]
    for name, place in (("colour", 0), ("shape", 1)):
        right = [getattr(r, name) == s[place] for r, s in zip(seen, asked, strict=False)]
        row[name] = round(sum(right) / len(right), 3)
    return row


@torch.no_grad()
def decode(vae: nn.Module, z_bfchw: Tensor) -> Tensor:
    """Pixels (b, f, h, w, 3) in 0..1 of scaled latents."""
    b = len(z_bfchw)
    parts = [vae.decode(part / vae.vae_scale) for part in z_bfchw.flatten(0, 1).split(16)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).unflatten(0, (b, -1))


def train_base(out: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    captions, vae = Captions(), open_taesd()
    training = BaseTraining(captions)

    def learn(step: int) -> dict[str, float]:
        lr = PEAK_LR * ramp(step - 1, total, WARM_UP)
        shown = [photo(FIRST_SEED + step * BATCH + i) for i in range(BATCH)]
        return {"lr": lr, **training.step(shown, lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training.average, captions, vae))
