"""One step of full-size networks with random weights beside their peers: time, peak memory, agreement.

All get the same weights. Attention is PyTorch's for everybody.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...modules.layers import positions
from .. import ours
from ..cases import cog_dit, svd_unet
from ..harness import Setting
from . import measure
from .report import Report

FULL, TINY = svd_unet.PUBLISHED, (64, 64, 64, 64)
SPREAD = 0.02  # of the weights: about 1 / sqrt(width)


@dataclass(frozen=True)
class Clip:
    """A release at its own size: latent frames, height and width in cells."""

    config: Any  # a CogVideoXConfig
    latents: int
    h: int
    w: int
    rounds: int


config = partial(ours.config, "cogvideox", "diffusion_model")
RELEASES = {
    "2B": Clip(config(num_layers=30, num_heads=30, rotary=False), 13, 60, 90, 3),
    "5B": Clip(config(), 13, 60, 90, 3),
    "1.5-5B": Clip(config(patch_size_t=2), 22, 96, 170, 2),
}


def setting(*peers: str) -> Setting:
    """What the cases of the CPU benchmarks are told."""
    return Setting(device=measure.device(), peers=frozenset(peers))


def clip_of(release: str, tiny: bool) -> Clip:
    """The clip of a release; in a rehearsal two layers of four heads and small pictures."""
    clip = RELEASES[release]
    if tiny:
        return replace(clip, config=replace(clip.config, num_layers=2, num_heads=4), latents=4, h=8, w=12)
    return clip


def inputs(clip: Clip, batch: int = 2) -> tuple[Tensor, ...]:
    """x, timestep and context for both halves of classifier-free guidance, and the peers' rotations."""
    device = measure.device()
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.bfloat16, device=device)
    x = draw(batch, 16, clip.latents, clip.h, clip.w)
    context = draw(batch, cog_dit.TEXT_TOKENS, clip.config.text_dim)
    return x, torch.full((batch,), 479.0, device=device), context, rotations(clip, device)


def rotations(clip: Clip, device: str) -> Any:
    """The table that our model makes for itself, in the peers' form; None for 2B."""
    if not clip.config.rotary:
        return None
    rows, columns = np.arange(clip.h // 2), np.arange(clip.w // 2)
    if clip.config.patch_size_t == 1:
        rows, columns = positions.crop_coordinates((clip.h // 2, clip.w // 2), (30, 45))
    frames = np.arange(clip.latents // clip.config.patch_size_t)
    angles = positions.rotary_angles(frames, rows, columns, 64)
    return cog_dit.real_tables(positions.rotary_table(angles, torch.device(device)))


def transformer(report: Report, release: str) -> None:
    """A CogVideoX transformer in bf16 with both halves of guidance in one batch."""
    clip = clip_of(release, report.tiny)
    names = (
        ("diffusers", "host") if release == "5B" else ("diffusers",)
    )  # the host computes the others wrongly
    with report.beside_others():
        models, absent = cog_dit.build(
            clip.config, setting(*names), torch.bfloat16, measure.device(), spread=SPREAD
        )
    with report.alone(), torch.inference_mode():
        given = inputs(clip)
        works = {name: partial(model, *given) for name, model in models.items()}
        figures = measure.beside(works, clip.rounds)
        report.add(f"{release}, CFG 2", candidates=figures, absent=absent)


def unets(report: Report) -> None:
    """The SVD UNet in fp16: SVD-XT's size, and ExVideo's size without its layers."""
    with report.beside_others():
        models, absent = build_unet(report, "diffusers", "host")
    for name, frames, h, w in (
        ("SVD-XT, 25 frames 1024x576", 25, 72, 128),
        ("128 frames 512x512", 128, 64, 64),
    ):
        with report.guarded(name):
            _compare_unets(report, name, models, absent, (frames, h, w))


def exvideo(report: Report) -> None:
    """The SVD UNet with ExVideo's layers in fp16."""
    with report.beside_others():
        models, absent = build_unet(report, "diffsynth", exvideo=True)
    _compare_unets(report, "ExVideo, 128 frames 512x512", models, absent, (128, 64, 64))


def build_unet(report: Report, *names: str, exvideo: bool = False) -> svd_unet.Models:
    """UNets in fp16, full width but for a rehearsal."""
    channels = TINY if report.tiny else FULL
    return svd_unet.build(channels, setting(*names), torch.float16, measure.device(), exvideo)


def _compare_unets(report: Report, name: str, models: dict, absent: dict, size: tuple[int, int, int]) -> None:
    frames, h, w = (2, 16, 16) if report.tiny else size
    with report.alone(), torch.inference_mode():
        given = svd_unet.inputs(frames, h, w, torch.float16, measure.device())
        works = {peer: partial(model, *given) for peer, model in models.items()}
        report.add(name, candidates=measure.beside(works, 4), absent=absent)
