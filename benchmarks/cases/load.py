"""Loading a checkpoint shaped like a slice of CogVideoX 5B: ours beside random initialisation and copying."""

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..harness import OURS, Row, Setting

MIB = 2**20
COPY, EMPTY = "init, cast, copy", "to_empty, copy"


def run(setting: Setting) -> Iterator[Row]:
    """CPU seconds and peak anonymous memory by way of loading; the file is written first."""
    from ...modules.families.cogvideox.config import CogVideoXConfig

    config = CogVideoXConfig(num_layers=3 if setting.full else 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slice.safetensors"
        _write(config, file)
        mib = file.stat().st_size / MIB
        ways: dict[str, Callable[[], Any]] = {
            OURS: lambda: _ours(file),
            COPY: lambda: _copied(config, file),
            EMPTY: lambda: _emptied(config, file),
        }
        parity = _assert_same(ways)
        seconds, memory = _measure(ways, rounds=3)
    size = f"{mib:.0f} MiB"
    yield Row(size, "CPU s", seconds, parity)
    shares = {name: [peak / mib for peak in peaks] for name, peaks in memory.items()}
    yield Row(size, "anonymous share of file", shares)


def _write(config, file: Path) -> None:
    from safetensors.torch import save_file

    from ...modules.families.cogvideox.model import CogVideoXTransformer
    from ...modules.weights.part import EmptyOperations

    meta = CogVideoXTransformer(config, ops=EmptyOperations, dtype=torch.bfloat16, device="meta")
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.randint(-99, 99, value.shape, dtype=torch.int16, generator=generator).bfloat16() / 1000
        for key, value in meta.state_dict().items()
    }
    save_file(weights, file)


def _ours(file: Path) -> torch.nn.Module:
    from ...modules.families import FAMILIES
    from ...modules.weights.load import load_into, read_part

    finding, tensors = read_part(file, FAMILIES)
    return load_into(finding.part.empty(finding.config), tensors)


def _copied(config, file: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    from ...modules.families.cogvideox.model import CogVideoXTransformer

    model = CogVideoXTransformer(config).to(torch.bfloat16)
    model.load_state_dict(load_file(file))
    return model


def _emptied(config, file: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    from ...modules.families.cogvideox.model import CogVideoXTransformer

    model = CogVideoXTransformer(config, dtype=torch.bfloat16, device="meta").to_empty(device="cpu")
    model.load_state_dict(load_file(file))
    return model


def _assert_same(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    models = {name: way().state_dict() for name, way in ways.items()}
    for name, weights in models.items():
        if not all(torch.equal(weights[key], value) for key, value in models[OURS].items()):
            raise AssertionError(f"{name} loads other weights than ours.")
    return {name: 0.0 for name in ways if name != OURS}


def _measure(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list], dict[str, list]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds):
        for name in list(ways) if i % 2 else reversed(list(ways)):
            gc.collect()
            start = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - start)
            gc.collect()
            memory[name].append(_anonymous_peak(ways[name]))
    return seconds, memory


def _anonymous_peak(work: Callable[[], Any]) -> float:
    """Most MiB of memory without a file behind it that `work` adds."""
    before = _anonymous_now()
    most, done = [before], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], _anonymous_now())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    kept = work()
    most[0] = max(most[0], _anonymous_now())
    done.set()
    watcher.join()
    del kept
    return most[0] - before


def _anonymous_now() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
