"""Trains the pocket TAESD: an encoder that repeats the known latents, a decoder that draws from them.

The two never meet: the encoder's goal is a fixed linear map, the decoder starts from that map's own values, with a
little noise. Both see 32x32 pixels around the shape first, whole frames last.
"""

import random
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ..optimizers import BlockOptimizer
from ..progress import RunLog, load_run, save_run
from ..shapes import SIZE, draw_mask
from ..svd.latents import CELL, SCALE, latents_of
from ..svd.train_vae import Cut, decoder_loss
from ..train_vae import Stage, lr_at
from .parts import build_taesd
from .world import draw_frames, photo

DECODER_STAGES = (Stage(1600, 1, 32, 16, 2e-3), Stage(200, 1, 64, 6, 1e-3))
ENCODER_STAGES = (Stage(600, 1, 32, 16, 2e-3), Stage(100, 1, 64, 6, 1e-3))
SAVE_EVERY = 50
FIRST_SEED = 4_000_000


@torch.no_grad()
def start_weights(model: nn.Module) -> None:
    """Unit gain through ReLUs, small residual branches; latents are counted as the host counts SD1.5's."""
    for name, p in model.named_parameters():
        if p.dim() == 4:
            nn.init.normal_(p, std=(2 / p[0].numel()) ** 0.5)
            if ".conv.4." in name:
                p.mul_(0.2)
        else:
            nn.init.zeros_(p)
    model.vae_scale.fill_(SCALE)  # type: ignore[operator]


def cut_of(seed: int, crop: int) -> Cut:
    """A crop of a photo that begins at a cell's corner and holds the shape's centre, or the whole frame."""
    dice = random.Random(f"cut {seed}")
    clip = photo(seed).clip
    left, top = (
        min(max(int(v) - crop // 2 + dice.randint(-14, 14), 0), SIZE - crop) // CELL * CELL
        for v in clip.middle
    )
    rows, columns = slice(top, top + crop), slice(left, left + crop)
    return Cut(draw_frames(clip, 1)[..., rows, columns], draw_mask(clip, 1)[..., rows, columns])


def cuts_of(step: int, stage: Stage) -> Cut:
    """The cuts of a step, on the batch axis."""
    cuts = [cut_of(FIRST_SEED + step * 64 + i, stage.crop) for i in range(stage.batch)]
    return Cut(torch.cat([cut.pixels for cut in cuts]), torch.cat([cut.cover for cut in cuts]))


def learn(vae: nn.Module, part: str, cut: Cut) -> tuple[torch.Tensor, float]:
    """Loss of a part, and its squared error: of pixels in -1..1, or of scaled latents."""
    if part == "decoder":
        return decoder_loss(vae.decode, cut)
    # half of the pictures hold noise, so that a picture from elsewhere does not throw the encoder off
    strength = 0.2 * torch.rand(len(cut.pixels), 1, 1, 1) * (torch.rand(len(cut.pixels), 1, 1, 1) < 0.5)
    x = (cut.pixels + strength * torch.randn_like(cut.pixels)).clamp(-1, 1)
    loss = mse_loss(vae.encode(x) * SCALE, latents_of(x))
    return loss, loss.item()


def train_part(out: Path, part: str) -> None:
    """Train the `encoder` or the `decoder` through its stages, going on from the last saved step."""
    torch.manual_seed(0)
    vae = build_taesd()
    start_weights(vae)
    vae.vae_scale.requires_grad_(False)
    model = vae.taesd_encoder if part == "encoder" else vae.taesd_decoder
    stages = ENCODER_STAGES if part == "encoder" else DECODER_STAGES
    optimizer = BlockOptimizer(model, model, convolutions=True)
    done, total = load_run(out, model, optimizer), sum(stage.steps for stage in stages)
    log = RunLog(out / "log.jsonl", every=25)
    torch.manual_seed(done)
    for step in range(done, total):
        stage, lr = lr_at(step, stages)
        loss, error = learn(vae, part, cuts_of(step, stage))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(lr)
        log.add(step + 1, loss=loss.item(), error=error, lr=lr, crop=stage.crop)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
            save_run(out, step + 1, model, optimizer)


def trained_vae(encoder_run: Path, decoder_run: Path) -> nn.Module:
    """TAESD from the two halves' last saved steps."""
    vae = build_taesd()
    start_weights(vae)
    for run, part in ((encoder_run, vae.taesd_encoder), (decoder_run, vae.taesd_decoder)):
        part.load_state_dict(torch.load(run / "state.pt", weights_only=True)["model"])
    return vae.requires_grad_(False).eval()
