"""Trains the pocket UNet on the known latents of drawn clips."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..optimizers import BlockOptimizer
from ..parts import pack
from ..progress import RunLog, load_run, save_run
from ..train_transformer import AVERAGE
from .latents import SCALE, latents_of
from .sampling import NUMBER_WIDTH, Course, Told, measure, sample, told_of, velocity
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
SAVE_EVERY, CHECK_EVERY = 100, 250
FIRST_SEED, UNSEEN_SEED = 3_000_000, 90_000_000


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
    s = sigma.view(-1, 1, 1, 1, 1)
    return Sample(z + s * noise, (noise - s * z) / (s**2 + 1).sqrt(), sigma, told)


def clips_of_step(step: int, batch: int, still: float = STILL) -> list[SlidingClip]:
    seeds = [FIRST_SEED + step * 64 + i for i in range(batch)]
    return [still_clip(s) if random.Random(s).random() < still else sample_clip(s) for s in seeds]


def unseen_clips(count: int) -> list[SlidingClip]:
    """Clips of seeds that no training drew, speeds evenly spread; the last eighth stands still."""
    spread = [BUCKETS * (i + 0.5) / count for i in range(count)]
    return [sample_clip(UNSEEN_SEED + i, bucket=bucket) for i, bucket in enumerate(spread)]


class Training:
    """The UNet, its running mean and the optimizer, one step at a time."""

    def __init__(self) -> None:
        self.model, self.average = build_unet(), build_unet()
        start_weights(self.model)
        self.average.load_state_dict(self.model.state_dict())
        self.both = nn.ModuleDict({"model": self.model, "average": self.average})
        self.optimizer = BlockOptimizer(self.model, self.model, convolutions=True)

    def step(self, drawn: Sample, lr: float, number: int) -> dict[str, float]:
        """One update; the loss is the error of the denoised estimate, reported also at high noise alone."""
        with torch.autocast("cpu", torch.bfloat16):
            v = velocity(self.model, drawn.x_btchw, drawn.sigma_b, drawn.told)
        errors = (v.float() - drawn.v_btchw).square().flatten(1).mean(1)
        seen = drawn.sigma_b.square() / (drawn.sigma_b.square() + 1)
        (errors * seen).mean().backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(lr)
        self.follow(number)
        high = (errors * seen).detach()[drawn.sigma_b >= 10]
        return {
            "loss": (errors * seen).mean().item(),
            "high": high.mean().item() if len(high) else 0.0,
            "v_loss": errors.mean().item(),
            "norm": norm.item(),
        }

    @torch.no_grad()
    def follow(self, number: int) -> None:
        """Move the running mean; young ones forget faster."""
        keep = min(AVERAGE, (number + 1) / (number + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)


def lr_at(step: int, total: int) -> float:
    """Warms up, holds for half of the way, then falls evenly to a fiftieth."""
    return PEAK_LR * min(1.0, (step + 1) / WARM_UP, max(0.02, 2 * (1 - step / total)))


@torch.no_grad()
def check(unet: nn.Module, vision: nn.Module, course: Course, count: int = 8) -> dict[str, float]:
    """Figures of clips drawn from pictures that no training saw."""
    torch.manual_seed(0)
    clips = unseen_clips(count)
    figures = measure(sample(unet, told_of(clips, vision), course), clips)
    return {name: round(value, 4) for name, value in figures.items()}


def train_unet(out: Path, vision_run: Path, total: int) -> None:
    """Train to `total` steps in all, going on from the last saved one."""
    vision, training = open_vision(vision_run), Training()
    done = load_run(out, training.both, training.optimizer)
    torch.manual_seed(done)
    log, checks = RunLog(out / "log.jsonl", every=25), RunLog(out / "checks.jsonl", every=1)
    for step in range(done + 1, total + 1):
        drawn = draw_sample(clips_of_step(step, BATCH), FRAMES, vision, DROP)
        lr = lr_at(step - 1, total)
        log.add(step, lr=lr, **training.step(drawn, lr, step))
        if step % SAVE_EVERY == 0 or step == total:
            save_run(out, step, training.both, training.optimizer)
        if step % CHECK_EVERY == 0 or step == total:
            state = torch.get_rng_state()
            checks.write(step=step, **check(training.average, vision, Course(FRAMES, 12, (1.0, 1.0))))
            torch.set_rng_state(state)
