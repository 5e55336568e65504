"""Which way of writing a layer is fastest on the card.

Convolutions over time as a view, as they are, channels innermost, and as products; ExVideo's over time and space.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import measure
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
                shape = (16, 3, 64) if report.tiny else (channels, frames, cells)
                report.add(f"over time, {name}", milliseconds=over_time(*shape, dtype))
        for channels, side in ((320, 64), (640, 32), (1280, 16)):
            with report.guarded(f"ExVideo {channels}"):
                shape = (16, 4, 8) if report.tiny else (channels, 34, side)
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
        "as it is": lambda: F.conv3d(padded.permute(3, 0, 1, 2)[None], weight, bias),
        "weight channels last too": lambda: F.conv3d(padded.permute(3, 0, 1, 2)[None], last, bias),
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
