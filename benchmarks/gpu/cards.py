"""Whole runs through our nodes in the real ComfyUI, full-size random checkpoints, on a card of a given size.

A smaller card is the card with the rest of its memory taken by another process: the host, its allocator and its
streaming of weights all find that little free.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import host, pictures
from .report import Report

GIB = 2**30
CONTEXT = 0.5  # GiB that a process takes on the card before its first tensor: part of what a card must hold
FEW, MORE = 2, 4  # steps of two runs; the first one also loads, the second one tells the time of a step
LIMIT = 80.0  # seconds after which a run is given up, so that others have their turn
XT, LONG = (1024, 576, 25), (512, 512, 128)


@contextmanager
def card_of(gib: float | None, figures: dict[str, Any]) -> Iterator[None]:
    """A card of which so much is left, the whole one for None; most used meanwhile goes into `figures`."""
    leave = "all" if gib is None else str(gib - CONTEXT)
    command = [sys.executable, str(Path(__file__).with_name("ballast.py")), leave]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as ballast:
        first = int(ballast.stdout.readline())
        figures["free_gib"] = round(first / GIB, 2)
        try:
            yield
        finally:
            ballast.stdin.close()
            lowest = int(ballast.stdout.readline())
            figures["most_used_gib"] = round((first - lowest) / GIB + CONTEXT, 2)


class Clock:
    """Wall seconds of the parts of a run, kept by name."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of `work`; its time goes to `name`."""
        import torch

        start = time.monotonic()
        result = work()
        torch.cuda.synchronize()
        self.figures[name] = round(time.monotonic() - start, 2)
        return result


@contextmanager
def limited(report: Report, gib: float | None, clock: Clock) -> Iterator[None]:
    """Ends the process after LIMIT seconds; a kernel that hangs hears no exception."""

    def give_up() -> None:
        report.add("run", failed=f"not done after {LIMIT:.0f} s", card_gib=gib, **clock.figures)
        os._exit(1)

    timer = threading.Timer(LIMIT, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def on_card(report: Report, gib: float | None, run: Callable[[host.Room, Clock], None]) -> None:
    """Start the host, wait for the card, take the ballast on board, run, and write one row."""
    dynamic = host.start(report.folder / "base", "dynamic")
    room, clock = host.Room(), Clock()
    with report.alone(), report.guarded("run"), limited(report, gib, clock):
        try:
            with card_of(gib, clock.figures):
                run(room, clock)
        finally:
            if more := clock.figures.get(f"sample {MORE}"):
                clock.figures["seconds_per_step"] = round(more / MORE, 2)
            report.add("run", dynamic=dynamic, card_gib=gib, **clock.figures)


def svd(report: Report, gib: float | None, extended: bool) -> None:
    """SVD-XT, or with ExVideo 128 frames, from picture to frames."""

    def run(room: host.Room, clock: Clock) -> None:
        parts = clock.time("load", lambda: pictures.load_svd(room, "auto", "SVD/svd-xt.safetensors"))
        model, vision, vae = parts
        if extended:
            patch = {"model": model, "exvideo": "SVD/exvideo.safetensors"}
            (model,) = clock.time("patch", lambda: room.call("ExVideoPatch", **patch))
        width, height, frames = LONG if extended else XT
        asked = {"width": width, "height": height, "num_frames": frames, "batch_size": 1}
        (latent,) = room.call("VideoLatent", family="svd", **asked)
        prompts = clock.time("condition", lambda: pictures.condition(room, vision, vae, latent, 512))
        long_clip = {
            "long_clip": "on",
            "sequential_cfg": True,
            "equalise_frames": True,
            "contrast_scale": 1.2,
        }
        changes = {"long_clip": long_clip} if extended else {}
        finish(
            room,
            clock,
            vae,
            lambda steps: pictures.sample(room, model, latent, *prompts, steps=steps, **changes),
        )

    on_card(report, gib, run)


def finish(room: host.Room, clock: Clock, vae: Any, sample: Callable[[int], Any]) -> None:
    """Sample twice, decode, and look at the frames."""
    clock.time(f"sample {FEW}", lambda: sample(FEW))
    samples = clock.time(f"sample {MORE}", lambda: sample(MORE))
    clock.figures["latents_finite"] = bool(samples["samples"].isfinite().all())
    decoded = {"vae": vae, "latent": samples, "chunk": 0, "overlap": 2}
    frames, _ = clock.time("decode", lambda: room.call("VAEDecodeChunked", **decoded))
    clock.figures |= {"frames": list(frames.shape), "frames_finite": bool(frames.isfinite().all())}


def cogvideox(report: Report, gib: float | None, dtype: str) -> None:
    """CogVideoX 5B from random prompt features to frames, 49 of 720x480."""

    def run(room: host.Room, clock: Clock) -> None:
        import torch

        from ...modules.families import COGVIDEOX
        from ...nodes.pipeline import loading

        name, vae_name = "CogVideo/5b.safetensors", "CogVideo/vae.safetensors"
        source = loading.source_of(COGVIDEOX, name, name, "diffusion_model")
        model = clock.time("load", lambda: room.work(lambda: loading.load_model(COGVIDEOX, source, dtype)))
        vae = room.work(lambda: loading.load_video_vae(COGVIDEOX, name, vae_name))
        asked = {"width": 720, "height": 480, "num_frames": 49, "batch_size": 1}
        (latent,) = room.call("VideoLatent", family="cogvideox", **asked)
        prompts = [[[torch.randn(1, 226, 4096), {}]] for _ in range(2)]
        way = {"sampler_name": "cogvideox_ddim", "scheduler": "simple"}
        finish(
            room, clock, vae, lambda steps: pictures.sample(room, model, latent, *prompts, steps=steps, **way)
        )

    on_card(report, gib, run)
