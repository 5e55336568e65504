"""Trains the pocket UNet on the known latents of drawn clips."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..optimizers import BlockOptimizer
from ..parts import pack
from ..training import Averaged, Plan, mean_of, ramp, squared_errors, train
from .latents import SCALE, latents_of
from .sampling import NUMBER_WIDTH, Course, Told, measure, noise_process, sample, told_of, velocity
from .vision import TOKEN, open_vision
from .world import BUCKETS, FRAMES, SIZE, SlidingClip, draw_frames, sample_clip, still_clip

CHANNELS = (64, 64, 32, 32)  # norms of 32 groups forget, at 32 channels, what the embedding adds to them
HEAD_DIM = 32
BATCH = 4
PEAK_LR = 2e-3
WARM_UP = 60  # steps
DROP = 0.12  # part of the clips whose picture is left out, for guidance
STILL = 0.12  # part of the clips that stand still anywhere in the frame
MISREAD = 0.3  # spread of errors of the raw image latents, in half of the clips: an encoder is not exact
LOG_MEAN, LOG_SPREAD = 1.0, 1.6  # of ln sigma
HIGH = (3.4, 6.6)  # ln sigma of the fifth of the clips that are nothing but noise: sampling starts at 700
LOG_EVERY, SAVE_EVERY, CHECK_EVERY = 25, 100, 250
FIRST_SEED, UNSEEN_SEED = 3_000_000, 90_000_000
CHECKED = 8  # clips of the checks


def settings() -> dict[str, object]:
    """Sizes in the words of SVDConfig."""
    return {
        "channels": CHANNELS,
        "head_dim": HEAD_DIM,
        "context_dim": TOKEN,
        "adm_dim": 3 * NUMBER_WIDTH,
        "num_frames": FRAMES,
        "width": SIZE,
        "height": SIZE,
    }


def attend_in_float32(q: Tensor, k: Tensor, v: Tensor, transformer_options: Any = None) -> Tensor:
    """Attention outside autocast: on a CPU bfloat16 halves the time of all products but these."""
    pack()
    from kinetograph.modules.layers.attention import attend

    with torch.autocast("cpu", enabled=False):
        return attend(q.float(), k.float(), v.float(), transformer_options=transformer_options)


def build_unet() -> nn.Module:
    """The pack's own UNet at pocket size, weights unset."""
    pack()
    from kinetograph.modules.families.svd.config import SVDConfig
    from kinetograph.modules.families.svd.model import SVDUNet

    return SVDUNet(SVDConfig(**settings()), attention=attend_in_float32, dtype=torch.float32)


def start_weights(unet: nn.Module) -> None:
    """Unit gain, small residual branches, nothing said at first; raw image latents weighed as scaled ones."""
    small = ("out_layers.3.", "proj_out.", "to_out.0.", "net.2.")
    for name, p in unet.named_parameters():
        if p.dim() >= 2:
            nn.init.normal_(p, std=p[0].numel() ** -0.5 * (0.3 if any(part in name for part in small) else 1))
        elif name.endswith("weight"):  # of norms
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)
    weights = dict(unet.named_parameters())
    nn.init.zeros_(weights["out.2.weight"])
    weights["input_blocks.0.0.weight"].data[:, 4:] *= SCALE


@dataclass(frozen=True)
class Sample:
    """One batch: noisy latents (b, t, c, h, w), the v to predict, noise levels, what is told."""

    x_btchw: Tensor
    v_btchw: Tensor
    sigma_b: Tensor
    told: Told


def draw_levels(count: int) -> Tensor:
    """Noise levels, most of them where a shape takes its place."""
    usual = LOG_MEAN + LOG_SPREAD * torch.randn(count)
    high = HIGH[0] + (HIGH[1] - HIGH[0]) * torch.rand(count)
    return torch.where(torch.rand(count) < 0.2, high, usual).clamp(-6, HIGH[1]).exp()


def draw_sample(clips: list[SlidingClip], frames: int, vision: nn.Module, drop: float) -> Sample:
    """Clips at random noise levels."""
    z = torch.stack([latents_of(draw_frames(clip, frames)) for clip in clips])
    told, b = told_of(clips, vision), len(clips)
    misread = MISREAD * (torch.rand(b, 1, 1, 1) < 0.5) * torch.randn_like(told.image_bchw)
    kept = (torch.rand(b) >= drop).float().view(-1, 1, 1, 1)
    told = Told(told.context_b1d * kept[..., 0], (told.image_bchw + misread) * kept, told.y_bd)
    sigma, noise = draw_levels(b), torch.randn_like(z)
    process = noise_process()
    return Sample(process.noisy(z, noise, sigma), process.target(z, noise, sigma), sigma, told)


def clips_of_step(step: int) -> list[SlidingClip]:
    seeds = [FIRST_SEED + step * 64 + i for i in range(BATCH)]
    return [still_clip(s) if random.Random(s).random() < STILL else sample_clip(s) for s in seeds]


def unseen_clips(count: int) -> list[SlidingClip]:
    """Clips of seeds that no training drew, speeds evenly spread; the last eighth stands still."""
    spread = [BUCKETS * (i + 0.5) / count for i in range(count)]
    return [sample_clip(UNSEEN_SEED + i, bucket=bucket) for i, bucket in enumerate(spread)]


def errors_of(unet: nn.Module, drawn: Sample) -> tuple[Tensor, Tensor]:
    """Squared errors of v, and of the denoised estimate, of each clip (b,); the second are what is learned from."""
    with torch.autocast("cpu", torch.bfloat16):
        v = velocity(unet, drawn.x_btchw, drawn.sigma_b, drawn.told)
    errors = squared_errors(v, drawn.v_btchw)
    # v enters the denoised estimate by sigma / sqrt(sigma^2 + 1)
    return errors, errors * (drawn.sigma_b.square() / (drawn.sigma_b.square() + 1))


class Training(Averaged):
    """The UNet, its running mean and the optimizer, one step at a time."""

    def __init__(self) -> None:
        self.model, self.average = build_unet(), build_unet()
        start_weights(self.model)
        optimizer = BlockOptimizer(self.model, self.model, convolutions=True)
        super().__init__(self.model, self.average, optimizer)

    def step(self, drawn: Sample, lr: float, number: int) -> dict[str, float]:
        """One update; the loss is the error of the denoised estimate, reported also at high noise alone."""
        errors, denoised = errors_of(self.model, drawn)
        denoised.mean().backward()
        norm = self.apply(lr, number)
        return {
            "loss": denoised.mean().item(),
            "high": mean_of(denoised, drawn.sigma_b >= 10),
            "v_loss": errors.mean().item(),
            "norm": norm,
        }


def trained_unet(run: Path) -> tuple[nn.Module, int]:
    """The running mean of the last saved step, and that step."""
    training = Training()
    step = training.open(run)
    return training.average.requires_grad_(False).eval(), step


def lr_at(step: int, total: int) -> float:
    """Warms up, holds for half of the way, then falls evenly to a fiftieth."""
    return PEAK_LR * ramp(step, total, WARM_UP)


@torch.no_grad()
def check(unet: nn.Module, vision: nn.Module, course: Course) -> dict[str, float]:
    """Figures of clips drawn from pictures that no training saw."""
    torch.manual_seed(0)
    clips = unseen_clips(CHECKED)
    figures = measure(sample(unet, told_of(clips, vision), course), clips)
    return {name: round(value, 4) for name, value in figures.items()}


def train_unet(out: Path, vision_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    vision, training = open_vision(vision_run), Training()

    def learn(step: int) -> dict[str, float]:
        drawn = draw_sample(clips_of_step(step), FRAMES, vision, DROP)
        lr = lr_at(step - 1, total)
        return {"lr": lr, **training.step(drawn, lr, step)}

    course = Course(FRAMES, 12, (1.0, 1.0))
    plan = Plan(total, LOG_EVERY, SAVE_EVERY, CHECK_EVERY)
    train(out, training, plan, learn, lambda: check(training.average, vision, course))
