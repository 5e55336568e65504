"""Memory of a stream against the length of the clip: decoding and encoding with the CogVideoX autoencoder.

Chunks are consumed, not collected. Tensors are counted; resident memory is what the system counts while a
small model really runs.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from .. import ours
from ..harness import OURS, Row, Setting
from ..memory import peak_live_bytes

SHORT, LONG = 49, 513
RESIDENT_ROUNDS = 3
MIB = 2**20


def counts(setting: Setting) -> Iterator[Row]:
    """Ratios of the peak of the long clip to that of the short one."""
    over = f"{LONG} over {SHORT} frames"
    width, height = (720, 480) if setting.full else (96, 64)
    for name, stream in {"decode": _decode, "encode": _encode}.items():
        works = [partial(stream, frames, "meta", width, height, full=True) for frames in (SHORT, LONG)]
        short, long = map(peak_live_bytes, works)
        yield Row(f"{name} {over} {width}x{height}", "tensors ratio", {OURS: [long / short]})
    side = 128 if setting.full else 64
    for name, stream in {"decode": _decode, "encode": _encode}.items():
        works = [partial(stream, frames, "cpu", side, side, full=False) for frames in (SHORT, LONG)]
        # Turn by turn, each in a process of its own: what one run leaves in the allocator is not the next one's.
        rounds = [[_in_a_process(work) for work in works] for _ in range(RESIDENT_ROUNDS)]
        ratios = [long / short for short, long in rounds]
        yield Row(f"{name} {over} {side}x{side}", "resident ratio", {OURS: ratios})


def _model(full: bool, device: str):
    sizes = {"block_out_channels": (16, 32, 32, 64), "layers_per_block": 1, "norm_groups": 4}
    config = ours.config("cogvideox", "vae", **({} if full else sizes))
    dtype = torch.bfloat16 if full else torch.float32
    model = ours.network("cogvideox", "vae", config, dtype, device)
    ours.draw(model)
    return model


@torch.inference_mode()
def _decode(frames: int, device: str, width: int, height: int, full: bool) -> None:
    model = _model(full, device)
    z = torch.zeros(1, 16, (frames + 3) // 4, height // 8, width // 8, dtype=model.dtype, device=device)
    for chunk in model.decode_stream(z):
        del chunk


@torch.inference_mode()
def _encode(frames: int, device: str, width: int, height: int, full: bool) -> None:
    model = _model(full, device)
    pieces = [8] * (frames // 8) + [frames % 8]
    clips = (torch.zeros(1, 3, n, height, width, dtype=model.dtype, device=device) for n in pieces)
    for moments in model.encode_stream(clips, frames):
        del moments


def _in_a_process(work: Callable[[], None]) -> float:
    """`_resident` of a work in a fork of this process."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_resident, (work,))


def _resident(work: Callable[[], None]) -> float:
    """Most resident MiB seen while `work` runs."""
    most, done = [_resident_now()], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], _resident_now())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return most[0]


def _resident_now() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB
