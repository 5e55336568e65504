"""Which way of writing a layer is fastest on the card, and how much to work on at once.

Convolutions over time as a view, as they are, channels innermost, and as products; slab sizes of every room
that has one; channels innermost through whole networks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...modules.families.svd import long_positions
from ...modules.layers import slabs as kit
from ..cases import cog_dit, cog_vae, svd_unet, svd_vae
from . import decoders, measure, networks
from .report import Report

CONVOLUTIONS = {  # channels, frames, cells: levels of the UNet at SVD-XT's size, slabs of the decoder
    "UNet 320": (320, 25, 72 * 128, torch.float16),
    "UNet 640": (640, 25, 36 * 64, torch.float16),
    "UNet 1280": (1280, 25, 18 * 32, torch.float16),
    "decoder 128": (128, 8, 128 * 128, torch.bfloat16),
    "decoder 512": (512, 8, 72 * 128, torch.bfloat16),
}


def layers(report: Report) -> None:
    """Convolutions over time, and ExVideo's over time and space."""
    with report.alone(), torch.inference_mode():
        for name, (channels, frames, cells, dtype) in CONVOLUTIONS.items():
            with report.guarded(name):
                shape = (channels, frames, 64 if report.tiny else cells)
                report.add(f"over time, {name}", milliseconds=over_time(*shape, dtype))
        for channels, side in ((320, 64), (640, 32), (1280, 16)):
            with report.guarded(f"ExVideo {channels}"):
                shape = (channels, 6, 8) if report.tiny else (channels, 34, side)
                report.add(f"over time and space, {channels}", milliseconds=over_space(*shape))


def over_time(channels: int, frames: int, cells: int, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of a (3, 1, 1) convolution of one clip by way of computing it."""
    draw = partial(torch.randn, device=measure.device(), dtype=dtype)
    x, bias = draw(1, channels, frames, cells), draw(channels)
    weight = draw(channels, channels, 3, 1, 1) * (3 * channels) ** -0.5
    plane = x.unflatten(3, (-1, 8))
    last3, last2 = (
        plane.contiguous(memory_format=torch.channels_last_3d),
        x.contiguous(memory_format=torch.channels_last),
    )
    tokens = x[0].permute(2, 1, 0).contiguous()
    ways: dict[str, Callable[[], Tensor]] = {
        "conv2d of the view": lambda: F.conv2d(x, weight[..., 0], bias, padding=(1, 0)),
        "conv3d": lambda: F.conv3d(plane, weight, bias, padding=(1, 0, 0)),
        "conv3d, channels last": lambda: F.conv3d(last3, weight, bias, padding=(1, 0, 0)),
        "conv2d, channels last": lambda: F.conv2d(last2, weight[..., 0], bias, padding=(1, 0)),
        "three products of tokens": lambda: _products(tokens, weight, bias),
    }
    return {name: measure.quick(way) for name, way in ways.items()}


def _products(tokens_ltd: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    before, same, after = (tap.flatten(1).t() for tap in weight.unbind(2))
    out = torch.addmm(bias, tokens_ltd.flatten(0, 1), same).view(tokens_ltd.shape)
    out[:, 1:] += tokens_ltd[:, :-1] @ before
    out[:, :-1] += tokens_ltd[:, 1:] @ after
    return out


def over_space(channels: int, frames: int, side: int) -> dict[str, float]:
    """Milliseconds of ExVideo's convolution of padded frames, channels innermost."""
    draw = partial(torch.randn, device=measure.device(), dtype=torch.float16)
    padded, bias = draw(frames, side + 2, side + 2, channels), draw(channels)
    weight = draw(channels, channels, 3, 3, 3) * (27 * channels) ** -0.5
    first = padded.permute(3, 0, 1, 2).contiguous()
    last = weight.contiguous(memory_format=torch.channels_last_3d)
    ways: dict[str, Callable[[], Tensor]] = {
        "as it is": lambda: long_positions._convolved(padded, weight, bias),
        "weight channels last too": lambda: long_positions._convolved(padded, last, bias),
        "channels first": lambda: F.conv3d(first[None], weight, bias),
        "three planes": lambda: _planes(padded, weight, bias),
    }
    return {name: measure.quick(way) for name, way in ways.items()}


def _planes(padded_thwd: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x_tchw = padded_thwd.permute(0, 3, 1, 2)
    taps = [tap.contiguous(memory_format=torch.channels_last) for tap in weight.unbind(2)]
    out = F.conv2d(x_tchw[1:-1], taps[1], bias)
    out += F.conv2d(x_tchw[:-2], taps[0])
    out += F.conv2d(x_tchw[2:], taps[2])
    return out


def slabs(report: Report) -> None:
    """Time and peak of whole networks by how much is worked on at once, and channels innermost."""
    for name, study in STUDIES.items():
        with report.guarded(name), report.beside_others():
            run = study(report)
        with report.guarded(name), report.alone(), torch.inference_mode():
            run()


@contextmanager
def changed(place: Any, name: str, value: Any) -> Iterator[None]:
    """A constant of a module with another value for a while."""
    usual = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, usual)


def sweep(report: Report, title: str, name: str, powers: tuple[int, ...], work: Callable) -> None:
    """A row for each power of two that a budget may be, and one for what it is."""
    usual = getattr(kit, name).accelerator
    for numbers in sorted({usual, *(2**power for power in powers)}):
        with changed(kit, name, kit.Budget(numbers, numbers)):
            figures = measure.beside({"ours": work}, 2)["ours"]
        report.add(f"{title}, {name} {numbers / 2**20:g} Mi", usual=numbers == usual, **figures)


def _unet(report: Report) -> Callable[[], None]:
    models, _ = networks.build_unet(report, "none")
    size = (2, 16, 16) if report.tiny else (25, 72, 128)
    given = svd_unet.inputs(*size, torch.float16, measure.device())
    work = partial(models["ours"], *given)
    return lambda: sweep(report, "SVD-XT UNet", "UNET", (21, 23, 25, 27, 29), work)


def _exvideo(report: Report) -> Callable[[], None]:
    models, _ = networks.build_unet(report, "none", exvideo=True)
    size = (2, 16, 16) if report.tiny else (128, 64, 64)
    given = svd_unet.inputs(*size, torch.float16, measure.device())
    work = partial(models["ours"], *given)

    def run() -> None:
        sweep(report, "ExVideo", "UNET", (23, 25, 27), work)
        sweep(report, "ExVideo's convolution", "IMAGE_VAE", (23, 25, 27), work)

    return run


def _svd_decoder(report: Report) -> Callable[[], None]:
    widths = svd_vae.QUARTER_WIDTHS if report.tiny else svd_vae.FULL_WIDTHS
    ours, _ = svd_vae.build(widths, networks.setting("none"), torch.bfloat16, measure.device())
    z = decoders.latents(8, 4, *((8, 8) if report.tiny else (72, 128)))
    work = partial(ours["ours"], z)

    def run() -> None:
        sweep(report, "SVD decoder", "IMAGE_VAE", (22, 24, 26, 28, 31), work)
        _channels_last(report, "SVD decoder", ours["ours"].__self__, torch.channels_last, work)
        _with_search(report, "SVD decoder", work)

    return run


def _cogvideox_decoder(report: Report) -> Callable[[], None]:
    widths = cog_vae.HALF_WIDTHS if report.tiny else cog_vae.FULL_WIDTHS
    ours, _ = cog_vae.build(widths, networks.setting("none"), torch.bfloat16, measure.device())
    z = decoders.latents(1, 16, *((3, 8, 8) if report.tiny else (5, 60, 90)))
    work = partial(ours["ours"], z)

    def run() -> None:
        sweep(report, "CogVideoX decoder", "VIDEO_VAE", (24, 26, 28, 30), work)
        _with_search(report, "CogVideoX decoder", work)
        with changed(kit, "storage_order", lambda device, axes: torch.channels_last_3d):
            model = ours["ours"].__self__
            _channels_last(report, "CogVideoX decoder", model, torch.channels_last_3d, work)

    return run


def _transformer(report: Report) -> Callable[[], None]:
    clip = networks.clip_of("2B", report.tiny)
    models, _ = cog_dit.build(
        clip.config, networks.setting("none"), torch.bfloat16, measure.device(), spread=networks.SPREAD
    )
    work = partial(models["ours"], *networks.inputs(clip))
    return lambda: sweep(report, "2B", "TOKENS", (22, 23, 24, 26, 28), work)


def _channels_last(
    report: Report, title: str, model: Any, order: torch.memory_format, work: Callable
) -> None:
    dims = 5 if order is torch.channels_last_3d else 4
    for parameter in model.parameters():
        if parameter.ndim == dims:
            parameter.data = parameter.data.contiguous(memory_format=order)
    report.add(f"{title}, weights channels last", **measure.beside({"ours": work}, 2)["ours"])


def _with_search(report: Report, title: str, work: Callable) -> None:
    """cudnn tries its algorithms and keeps the fastest; a host does so when asked."""
    with changed(torch.backends.cudnn, "benchmark", True):
        report.add(f"{title}, cudnn searches", **measure.beside({"ours": work}, 2)["ours"])


STUDIES: dict[str, Callable[[Report], Callable[[], None]]] = {
    "SVD-XT UNet": _unet,
    "ExVideo": _exvideo,
    "SVD decoder": _svd_decoder,
    "CogVideoX decoder": _cogvideox_decoder,
    "2B": _transformer,
}
