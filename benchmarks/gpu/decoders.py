"""Decoding with full-size autoencoders beside diffusers: time and peak memory in bfloat16.

Frames of SVD that are decoded together see each other: peers are compared at equal chunks. diffusers' CogVideoX
decoder is measured as it is and with its tiling, which changes the picture.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..cases import cog_vae, svd_vae
from . import measure, networks
from .report import Report

SIZES = {"49 frames 720x480": (13, 60, 90, 2), "81 frames 1360x768": (21, 96, 170, 1)}  # and rounds


def svd(report: Report) -> None:
    """The SVD decoder by frames at once, 1024x576; time is that of a frame."""
    widths = svd_vae.QUARTER_WIDTHS if report.tiny else svd_vae.FULL_WIDTHS
    names = networks.setting("diffusers", "host")
    with report.beside_others():
        decoders, absent = svd_vae.build(widths, names, torch.bfloat16, measure.device())
    for chunk in (1, 2) if report.tiny else (1, 4, 8, 14, 25):
        with report.guarded(f"chunk {chunk}"), report.alone(), torch.inference_mode():
            z = latents(chunk, 4, *((8, 8) if report.tiny else (72, 128)))
            figures = measure.beside({name: partial(decode, z) for name, decode in decoders.items()}, 3)
            report.add(f"SVD decode, chunk {chunk}, 1024x576", candidates=figures, absent=absent)


def latents(*shape: int) -> Tensor:
    """Random latents in bfloat16."""
    generator = torch.Generator(measure.device()).manual_seed(0)
    return torch.randn(shape, generator=generator, device=measure.device(), dtype=torch.bfloat16)


def cogvideox(report: Report) -> None:
    """The CogVideoX decoder: whole clips, and ours streamed with its caches on either side."""
    widths = cog_vae.HALF_WIDTHS if report.tiny else cog_vae.FULL_WIDTHS
    with report.beside_others():
        decoders, absent = cog_vae.build(
            widths, networks.setting("diffusers"), torch.bfloat16, measure.device()
        )
        ours = decoders["ours"].__self__
    for name, (count, h, w, rounds) in SIZES.items():
        with report.guarded(name), report.alone(), torch.inference_mode():
            z = latents(1, 16, *((3, 8, 8) if report.tiny else (count, h, w)))
            works = {peer: partial(decode, z) for peer, decode in decoders.items()}
            report.add(f"CogVideoX decode, {name}", candidates=measure.beside(works, rounds), absent=absent)
            for place in (None, "cpu"):
                _, figures = measure.first_run(
                    lambda z=z, place=place: streamed(ours.decode_stream(z, place))
                )
                report.add(f"CogVideoX decode, {name}, streamed, caches on {place or 'the card'}", **figures)


def streamed(chunks: Iterator[Tensor]) -> Tensor:
    """The frames of a stream, kept in main memory as the nodes do."""
    return torch.cat([chunk.cpu() for chunk in chunks], dim=2)
