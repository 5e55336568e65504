"""Latents of many clips, encoded once, on a scale where each channel has unit spread."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .parts import VAE_SETTINGS, build_vae
from .shapes import all_subjects, draw_batch, sample_clip

CLIPS_PER_SUBJECT = 16
FIRST_SEED = 10_000_000
SCALE = VAE_SETTINGS["scaling_factor"]
SURE = -10.0  # log variance of every latent: the VAE is trained on means, so a draw must be one


@dataclass(frozen=True)
class World:
    """Latents (n, c, t, h, w) as the transformer sees them, and their captions."""

    latents: Tensor
    captions: list[str]


@torch.no_grad()
def encode_world(vae: nn.Module, clips_per_subject: int, batch: int = 6) -> tuple[Tensor, list[str]]:
    """Raw latents and captions of `clips_per_subject` clips of each of the 90 subjects."""
    clips = [
        sample_clip(FIRST_SEED + i * 90 + j, subject)
        for i in range(clips_per_subject)
        for j, subject in enumerate(all_subjects())
    ]
    parts = [vae.encode(draw_batch(clips[i : i + batch])) for i in range(0, len(clips), batch)]
    return torch.cat(parts), [clip.caption for clip in clips]


@torch.no_grad()
def standardise(vae: nn.Module, latents: Tensor) -> Tensor:
    """Shift and scale each channel of the VAE's latents so that SCALE times it has no mean and unit spread.

    Returns the latents so changed. The decoder's convolutions of 1x1x1 undo this exactly; its first one pads
    with zeros and so sees a slightly different border, which costs nothing that can be measured.
    """
    mean = latents.mean((0, 2, 3, 4))
    gain = 1 / (SCALE * latents.std((0, 2, 3, 4)))
    out = vae.encoder.conv_out.conv
    c = mean.numel()
    out.weight[:c] *= gain.view(-1, 1, 1, 1, 1)
    out.bias[:c] = (out.bias[:c] - mean) * gain
    out.weight[c:], out.bias[c:] = 0.0, SURE
    for name, module in vae.decoder.named_modules():
        if name == "conv_in.conv" or name.endswith(("conv_y.conv", "conv_b.conv")):
            module.bias += torch.einsum("oithw,i->o", module.weight, mean)
            module.weight /= gain.view(1, -1, 1, 1, 1)
    return (latents - mean.view(-1, 1, 1, 1)) * gain.view(-1, 1, 1, 1)


def prepare_world(folder: Path) -> None:
    """Turn a finished VAE run into `vae.pt`, standardised, and `world.pt`."""
    vae = build_vae()
    vae.load_state_dict(torch.load(folder / "state.pt", weights_only=True)["model"])
    latents, captions = encode_world(vae, CLIPS_PER_SUBJECT)
    torch.save({"latents": standardise(vae, latents), "captions": captions}, folder / "world.pt")
    torch.save(vae.state_dict(), folder / "vae.pt")


def open_world(folder: Path) -> tuple[World, nn.Module]:
    """What the transformer trains on, and the VAE to look at its work with."""
    if not (folder / "world.pt").exists():
        prepare_world(folder)
    stored = torch.load(folder / "world.pt", weights_only=True)
    vae = build_vae()
    vae.load_state_dict(torch.load(folder / "vae.pt", weights_only=True))
    return World(stored["latents"] * SCALE, stored["captions"]), vae
