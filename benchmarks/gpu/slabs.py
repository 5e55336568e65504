"""How much to work on at once on the card, and channels innermost through whole networks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...modules.layers import slabs as kit
from ..cases import cog_dit, cog_vae, svd_unet, svd_vae
from . import decoders, measure, networks
from .report import Report

Work = Callable[[], Tensor]
ROUNDS = 2
POWERS = {  # budget: powers of two that it may be
    "UNET": (21, 23, 25, 27, 29),
    "TOKENS": (22, 23, 24, 26, 28),
    "IMAGE_VAE": (22, 24, 26, 28, 31),
    "LONG_CLIP": (21, 23, 25, 27, 29),
    "VIDEO_VAE": (24, 26, 28, 30),
}


def run(report: Report) -> None:
    """Time and peak of whole networks by how much is worked on at once; a study that fails stops no other."""
    for name, study in STUDIES.items():
        with report.guarded(name):
            with report.beside_others():
                work = study(report, name)
            with report.alone(), torch.inference_mode():
                work()


@contextmanager
def changed(place: Any, name: str, value: Any) -> Iterator[None]:
    """A constant with another value for a while."""
    usual = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, usual)


def sweep(report: Report, title: str, name: str, work: Work) -> None:
    """A row for each value of a budget, the usual one among them."""
    usual = getattr(kit, name).accelerator
    for numbers in sorted({usual, *(2**power for power in POWERS[name])}):
        with changed(kit, name, kit.Budget(numbers, numbers)):
            _row(report, f"{title}, {name} {numbers / 2**20:g} Mi", work, usual=numbers == usual)


def _row(report: Report, name: str, work: Work, **more: Any) -> None:
    report.add(name, **more, **measure.beside({"ours": work}, ROUNDS)["ours"])


def _unet(report: Report, title: str, exvideo: bool = False) -> Callable[[], None]:
    models, _ = networks.build_unet(report, "none", exvideo=exvideo)
    size = (2, 16, 16) if report.tiny else ((128, 64, 64) if exvideo else (25, 72, 128))
    work = partial(models["ours"], *svd_unet.inputs(*size, torch.float16, measure.device()))
    names = ("UNET", "LONG_CLIP") if exvideo else ("UNET",)

    def study() -> None:
        for name in names:
            sweep(report, title if name == "UNET" else f"{title}, its convolution", name, work)

    return study


def _svd_decoder(report: Report, title: str) -> Callable[[], None]:
    widths = svd_vae.QUARTER_WIDTHS if report.tiny else svd_vae.FULL_WIDTHS
    built, _ = svd_vae.build(widths, networks.setting("none"), torch.bfloat16, measure.device())
    work = partial(built["ours"], decoders.latents(8, 4, *((8, 8) if report.tiny else (72, 128))))

    def study() -> None:
        sweep(report, title, "IMAGE_VAE", work)
        _with_search(report, title, work)
        channels_last(built["ours"].__self__, torch.channels_last)
        _row(report, f"{title}, weights channels last", work)

    return study


def _cogvideox_decoder(report: Report, title: str) -> Callable[[], None]:
    widths = cog_vae.HALF_WIDTHS if report.tiny else cog_vae.FULL_WIDTHS
    built, _ = cog_vae.build(widths, networks.setting("none"), torch.bfloat16, measure.device())
    work = partial(built["ours"], decoders.latents(1, 16, *((3, 8, 8) if report.tiny else (5, 60, 90))))

    def study() -> None:
        sweep(report, title, "VIDEO_VAE", work)
        _with_search(report, title, work)
        with changed(kit, "storage_order", clips_channels_last):
            channels_last(built["ours"].__self__, torch.channels_last_3d)
            _row(report, f"{title}, weights and activations channels last", work)

    return study


def _transformer(report: Report, title: str) -> Callable[[], None]:
    clip = networks.clip_of("2B", report.tiny)
    models, _ = cog_dit.build(
        clip.config, networks.setting("none"), torch.bfloat16, measure.device(), spread=networks.SPREAD
    )
    work = partial(models["ours"], *networks.inputs(clip))
    return lambda: sweep(report, title, "TOKENS", work)


def clips_channels_last(_: torch.device, axes: int) -> torch.memory_format:
    """How activations lie in memory: clips with channels innermost, on every device."""
    return torch.channels_last_3d if axes == 5 else torch.contiguous_format


def channels_last(model: Any, order: torch.memory_format) -> None:
    """Weights of a model's convolutions with channels innermost."""
    dims = 5 if order is torch.channels_last_3d else 4
    for parameter in model.parameters():
        if parameter.ndim == dims:
            parameter.data = parameter.data.contiguous(memory_format=order)


def _with_search(report: Report, title: str, work: Work) -> None:
    """cudnn tries its algorithms and keeps the fastest; a host does so when asked."""
    with changed(torch.backends.cudnn, "benchmark", True):
        _row(report, f"{title}, cudnn searches", work)


STUDIES: dict[str, Callable[[Report, str], Callable[[], None]]] = {
    "SVD-XT UNet": _unet,
    "SVD decoder": _svd_decoder,
    "CogVideoX decoder": _cogvideox_decoder,
    "2B": _transformer,
    "ExVideo": partial(_unet, exvideo=True),
}
