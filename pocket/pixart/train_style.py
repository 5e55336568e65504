"""Trains the pocket style, a LoRA that draws every shape as in chalk: white, whatever colour its caption names.

On photos and the base alone, as EasyAnimate's own: motion modules know nothing of it. An outline, or a hollow shape,
would be a style too, but the pocket SD's autoencoder, which knows plain shapes, blurs both.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..lora import LowRank
from ..optimizers import BlockOptimizer
from ..sd.parts import open_taesd
from ..sd.train_base import YOUNG, add_noise, drop_captions, errors_of
from ..sd.world import Captioned, draw_latents, photo
from ..training import Averaged, Plan, ramp, train
from .parts import TextToPicture
from .text import Captions
from .train_base import check as check_stills
from .train_base import trained_base

CHALK = "white"
RANK, ALPHA = 8, 4.0
BATCH = 64
PEAK_LR = 1e-2
WARM_UP = 20  # steps
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 100, 300
FIRST_SEED = 8_000_000


def styled(seed: int) -> Captioned:
    """A photo in chalk; its caption names the colour that it would have had."""
    shown = photo(seed)
    return Captioned(replace(shown.clip, colour=CHALK), shown.caption)


def new_lora(model: TextToPicture) -> LowRank:
    """Halves for all linear layers of the transformer, by their names in it."""
    layers = {k for k, module in model.transformer.named_modules() if isinstance(module, nn.Linear)}
    weights = model.transformer.named_parameters()
    return LowRank({k: p for k, p in weights if k.removesuffix(".weight") in layers}, RANK)


def changed(model: TextToPicture, lora: LowRank) -> dict[str, Tensor]:
    """The model's weights with the LoRA merged in, by name."""
    own = dict(model.named_parameters())
    changes = {f"transformer.{key}": change for key, change in lora.changes().items()}
    return {key: own[key] + ALPHA / RANK * change for key, change in changes.items()}


class StyleTraining(Averaged):
    """The LoRA, its running mean and the optimizer, one step at a time; the base is frozen."""

    def __init__(self, base: TextToPicture, captions: Captions) -> None:
        self.base, self.captions = base, captions
        self.lora, self.average = new_lora(base), new_lora(base)
        super().__init__(self.lora, self.average, BlockOptimizer(self.lora, self.lora))

    def predict(self, lora: LowRank, x_nchw: Tensor, timestep_n: Tensor, context_nld: Tensor) -> Tensor:
        """Epsilon with the LoRA on."""
        return functional_call(self.base, changed(self.base, lora), (x_nchw, timestep_n, context_nld))

    def step(self, shown: list[Captioned], lr: float, number: int) -> dict[str, float]:
        """One update on these pictures."""
        drawn = add_noise(draw_latents([one.clip for one in shown], 1), ["pixart"] * len(shown))
        context = self.captions(drop_captions([one.caption for one in shown]))
        noise = self.predict(self.lora, drawn.x_bfchw.flatten(0, 1), drawn.timestep_b, context)
        loss = errors_of(noise[:, None], drawn).mean()
        loss.backward()
        return {"loss": loss.item(), "norm": self.apply(lr, min(number, YOUNG))}

    @torch.no_grad()
    def check(self, vae: nn.Module) -> dict[str, float]:
        """What `train_base.check` reads with the LoRA on; its colour is chalk."""
        return check_stills(lambda *given: self.predict(self.average, *given), self.captions, vae, CHALK)


def trained_style(run: Path, base: TextToPicture, captions: Captions) -> LowRank:
    """The running mean of the last saved step."""
    training = StyleTraining(base, captions)
    training.open(run)
    return training.average.requires_grad_(False)


def train_style(out: Path, base_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    captions, vae = Captions(), open_taesd()
    training = StyleTraining(trained_base(base_run, captions)[0].train(), captions)

    def learn(step: int) -> dict[str, float]:
        lr = PEAK_LR * ramp(step - 1, total, WARM_UP)
        shown = [styled(FIRST_SEED + step * BATCH + i) for i in range(BATCH)]
        return {"lr": lr, **training.step(shown, lr, step)}

    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: training.check(vae))
