"""torch.compile of whole networks beside their eager selves: time of a step, of compiling, and graph breaks.

The time of compiling counts the first run, and what ran beside it: the steps compile at once. It needs a C compiler.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..cases import cog_dit, svd_unet
from . import measure, networks
from .report import Report

Forward = Callable[..., Tensor]
ROUNDS = 4


def unet(report: Report, name: str) -> None:
    """The SVD UNet of ours or of a peer, 25 frames of 1024x576."""
    with report.beside_others():
        models, _ = networks.build_unet(report, name)
    size = (2, 16, 16) if report.tiny else (25, 72, 128)
    _compare(report, name, models[name], svd_unet.inputs(*size, torch.float16, measure.device()))


def transformer(report: Report, name: str) -> None:
    """CogVideoX 2B of ours or of a peer, 49 frames of 720x480, both halves of guidance."""
    clip = networks.clip_of("2B", report.tiny)
    names, device = networks.setting(name), measure.device()
    with report.beside_others():
        models, _ = cog_dit.build(clip.config, names, torch.bfloat16, device, spread=networks.SPREAD)
    _compare(report, name, models[name], networks.inputs(clip))


@torch.inference_mode()
def _compare(report: Report, name: str, model: Forward, values: tuple[Tensor, ...]) -> None:
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    backend = "aot_eager" if report.tiny else "inductor"
    compiled = torch.compile(model, backend=backend, dynamic=False)
    start = time.monotonic()
    with report.beside_others():
        compiled(*values)
    seconds = round(time.monotonic() - start, 1)
    breaks = {reason[:120]: count for reason, count in counters["graph_break"].items()}
    graphs = counters["stats"].get("unique_graphs")
    report.add(f"{name}, compiled", seconds=seconds, graphs=graphs, breaks=breaks)
    with report.alone():
        works = {"eager": partial(model, *values), "compiled": partial(compiled, *values)}
        report.add(f"{name}, a step", candidates=measure.beside(works, ROUNDS))
