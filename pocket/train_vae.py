"""Trains the pocket VAE: single frames first, then nine frames, then whole clips."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .parts import build_vae
from .progress import RunLog, load_run, save_run
from .shapes import FRAMES, SIZE, draw, draw_mask, sample_clip
from .training import ramp

NOISE = 0.15  # added to unit latents, so that the decoder forgives what a sampler gets slightly wrong
KEEP_SMALL = 4e-3  # weights of the loss's parts beside the reconstruction
KEEP_CENTRED = 2e-2
GUIDE = 0.2
SAVE_EVERY = 100


@dataclass(frozen=True)
class Stage:
    """A part of the run: how many frames a sample has, and for how long."""

    steps: int
    frames: int
    crop: int
    batch: int
    peak_lr: float


STAGES = (Stage(300, 1, 32, 24, 2e-3), Stage(700, 9, 32, 4, 1.5e-3), Stage(90, 17, 64, 2, 8e-4))


def start_weights(vae: nn.Module) -> None:
    """Unit gain, small residual branches, neutral spatial norms: the start that learned fastest in trials."""
    for name, p in vae.named_parameters():
        if p.dim() >= 4:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
            if any(part in name for part in ("conv2.", "conv_y.", "conv_b.")):
                p.data.mul_(0.1)
        elif name.endswith("conv_y.conv.bias"):  # multiplies the normed features
            nn.init.ones_(p)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
        else:
            nn.init.ones_(p)


def fold_frames(x_bcfhw: Tensor) -> Tensor:
    """Averages over each latent cell: (b, c, t, h, w); the first frame alone, then four by four."""
    first, rest = x_bcfhw[:, :, :1], x_bcfhw[:, :, 1:]
    cells = [nn.functional.avg_pool3d(first, (1, 8, 8))]
    if rest.shape[2]:
        cells.append(nn.functional.avg_pool3d(rest, (4, 8, 8)))
    return torch.cat(cells, 2)


def guide_latents(x_bcfhw: Tensor, cover_bfhw: Tensor) -> Tensor:
    """What the first seven latent channels should mean: mean colour, and cover in each of the cell's frames."""
    cover = cover_bfhw[:, None] * 2 - 1
    first = nn.functional.avg_pool3d(cover[:, :, :1], (1, 8, 8)).repeat(1, 4, 1, 1, 1)
    pool = nn.functional.avg_pool3d(cover[:, :, 1:], (1, 8, 8)) if cover.shape[2] > 1 else first[:, :1, 1:]
    b, _, f, h, w = pool.shape
    rest = pool.reshape(b, f // 4, 4, h, w).transpose(1, 2)
    return torch.cat([fold_frames(x_bcfhw), torch.cat([first, rest], 2)], 1)


def batch_of(step: int, stage: Stage) -> tuple[Tensor, Tensor]:
    """Pixels (b, 3, f, h, w) and cover (b, f, h, w) of a stage's cut around the shape."""
    clips = [sample_clip(1_000_000 + step * 64 + i) for i in range(stage.batch)]
    dice = random.Random(step)
    pixels, covers = [], []
    for clip in clips:
        at = dice.randint(0, FRAMES - stage.frames)
        x, y = clip.centres()[at + stage.frames // 2].tolist()
        left, top = (
            min(max(int(v) - stage.crop // 2 + dice.randint(-12, 12), 0), SIZE - stage.crop) for v in (x, y)
        )
        cut = (slice(at, at + stage.frames), slice(top, top + stage.crop), slice(left, left + stage.crop))
        pixels.append(draw(clip)[cut].permute(3, 0, 1, 2) * 2 - 1)
        covers.append(draw_mask(clip)[cut])
    return torch.stack(pixels), torch.stack(covers)


def vae_loss(vae: nn.Module, x: Tensor, cover: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction, five-fold near the shape, plus what keeps latents meaningful, small and centred."""
    mean = vae.encode(x)
    y = vae.decode(mean + NOISE * torch.randn_like(mean))
    near = nn.functional.max_pool2d(cover, 7, 1, 3)
    weight = (1 + 4 * near)[:, None]
    diff = y - x
    recon = (weight * diff.abs()).mean() + 2 * (weight * diff.square()).mean()
    guide = (mean[:, :7] - guide_latents(x, cover)).square().mean()
    small = mean.square().mean()
    centred = mean.mean((0, 2, 3, 4)).square().mean()
    psnr = -10 * (diff.detach().square().mean() / 4).log10()
    seen = {
        "psnr": psnr.item(),
        "guide": guide.item(),
        "rms": small.item() ** 0.5,
        "centre": centred.item() ** 0.5,
    }
    return recon + GUIDE * guide + KEEP_SMALL * small + KEEP_CENTRED * centred, seen


def lr_at(step: int, stages: tuple[Stage, ...] = STAGES) -> tuple[Stage, float]:
    """Stage and learning rate: each stage warms up, holds for 40 % and falls to a twentieth."""
    for stage in stages:
        if step < stage.steps:
            return stage, stage.peak_lr * ramp(step, stage.steps, warm_up=20, hold=0.4, least=0.05)
        step -= stage.steps
    raise ValueError("The run is complete: there is no such step.")


def train_vae(out: Path) -> None:
    """Train through all stages, going on from the last saved step."""
    torch.manual_seed(0)
    vae = build_vae()
    start_weights(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    done, total = load_run(out, vae, optimizer), sum(stage.steps for stage in STAGES)
    log = RunLog(out / "log.jsonl", every=25)
    for step in range(done, total):
        stage, lr = lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, seen = vae_loss(vae, *batch_of(step, stage))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        log.add(step + 1, loss=loss.item(), lr=lr, frames=stage.frames, **seen)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
            save_run(out, step + 1, vae, optimizer)
