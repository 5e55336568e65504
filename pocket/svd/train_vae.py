"""Trains the pocket autoencoder: an encoder that repeats the known latents, a decoder that draws from them.

The two never meet: the encoder's goal is a fixed linear map, the decoder starts from that map's own values, with
a little noise. The decoder first sees single frames cut around the shape, then clips.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, mse_loss

from ..optimizers import BlockOptimizer
from ..parts import pack
from ..progress import RunLog, load_run, save_run
from ..shapes import draw_mask
from ..train_vae import Stage, lr_at
from .latents import CELL, SCALE, latents_of
from .world import LONG_FRAMES, SIZE, SlidingClip, draw_frames, sample_clip, still_clip

CHANNELS = (32, 32, 32, 32)
NOISE = 0.06  # added to scaled latents, so that the decoder forgives what a sampler gets slightly wrong
SURE = -10.0  # log variance of every latent
SAVE_EVERY = 100
DECODER_STAGES = (
    Stage(300, 1, 64, 6, 2e-3),
    Stage(250, 4, 64, 3, 1.5e-3),
    Stage(200, 8, 128, 1, 1e-3),
    Stage(300, 4, 128, 2, 1e-3),
)
ENCODER_STAGES = (Stage(450, 1, 128, 6, 2e-3),)
FIRST_SEED = 2_000_000


def build_vae() -> nn.Module:
    """The pack's own autoencoder at pocket size, with the pointwise convolution of the image encoder."""
    pack()
    from kinetograph.modules.families.svd.vae import SVDVAE, VAEConfig

    return SVDVAE(VAEConfig(channels=CHANNELS, quant_conv=True), dtype=torch.float32)


def start_weights(model: nn.Module) -> None:
    """Unit gain, small residual branches, both halves of a mix alike; convolutions over time see one frame."""
    for name, p in model.named_parameters():
        if p.dim() >= 4:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
            if any(part in name for part in ("conv2.", "out_layers.3.", "proj_out.")):
                p.data.mul_(0.2)
            if p.dim() == 5:
                p.data[:, :, [0, 2]] = 0.0
        elif "norm" in name and name.endswith("weight") or name.endswith("_layers.0.weight"):
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)


@dataclass(frozen=True)
class Cut:
    """Pixels (f, 3, h, w) in -1..1 of a part of a clip, and how much of each the shape covers (f, h, w)."""

    pixels: Tensor
    cover: Tensor


def cover_of(clip: SlidingClip, frames: int) -> Tensor:
    return draw_mask(clip, frames, SIZE)


def cut_of(seed: int, stage: Stage) -> Cut:
    """A stage's cut from a clip; it begins at a cell's corner and holds the shape's centre."""
    dice = random.Random(seed)
    clip = still_clip(seed) if dice.random() < 0.3 else sample_clip(seed)
    at = dice.randint(0, LONG_FRAMES - stage.frames)
    frames = slice(at, at + stage.frames)
    x, y = clip.centres(LONG_FRAMES)[at + stage.frames // 2].tolist()
    left, top = (
        min(max(int(v) - stage.crop // 2 + dice.randint(-12, 12), 0), SIZE - stage.crop) // CELL * CELL
        for v in (x, y)
    )
    rows, columns = slice(top, top + stage.crop), slice(left, left + stage.crop)
    pixels, cover = (draws(clip, at + stage.frames)[frames] for draws in (draw_frames, cover_of))
    return Cut(pixels[..., rows, columns], cover[..., rows, columns])


def decoder_loss(decoder: nn.Module, cut: Cut) -> tuple[Tensor, float]:
    """Reconstruction, five-fold near the shape; and the squared error."""
    z = latents_of(cut.pixels)
    y = decoder((z + NOISE * torch.randn_like(z)) / SCALE)
    weight = (1 + 4 * max_pool2d(cut.cover, 7, 1, 3))[:, None]
    diff = y - cut.pixels
    loss = (weight * diff.abs()).mean() + 2 * (weight * diff.square()).mean()
    return loss, diff.detach().square().mean().item()


def encoder_loss(vae: nn.Module, cut: Cut, dice: random.Random) -> Tensor:
    """How far the encoder is from the linear map, scaled; half of the pictures hold noise."""
    x = cut.pixels
    if dice.random() < 0.5:
        x = x + dice.uniform(0, 0.3) * torch.randn_like(x)
    mean, log_variance = vae.encode_moments(x)
    return mse_loss(mean * SCALE, latents_of(x)) + 1e-4 * (log_variance - SURE).square().mean()


def train_part(out: Path, part: str) -> None:
    """Train the `encoder` or the `decoder` through its stages, going on from the last saved step."""
    torch.manual_seed(0)
    vae = build_vae()
    start_weights(vae)
    model = nn.ModuleList([vae.encoder, vae.quant_conv]) if part == "encoder" else vae.decoder
    stages = ENCODER_STAGES if part == "encoder" else DECODER_STAGES
    optimizer = BlockOptimizer(model, model, convolutions=True)
    done, total = load_run(out, model, optimizer), sum(stage.steps for stage in stages)
    log, dice = RunLog(out / "log.jsonl", every=25), random.Random(done)
    for step in range(done, total):
        stage, lr = lr_at(step, stages)
        cuts = [cut_of(FIRST_SEED + step * 64 + i, stage) for i in range(stage.batch)]
        if part == "encoder":
            loss = torch.stack([encoder_loss(vae, cut, dice) for cut in cuts]).mean()
            seen = {"loss": loss.item()}
        else:
            losses, errors = zip(*(decoder_loss(model, cut) for cut in cuts), strict=True)
            loss = torch.stack(losses).mean()
            seen = {"loss": loss.item(), "psnr": -10 * torch.tensor(errors).mean().div(4).log10().item()}
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(lr)
        log.add(step + 1, lr=lr, frames=stage.frames, **seen)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
            save_run(out, step + 1, model, optimizer)
