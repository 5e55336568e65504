"""Loading a checkpoint shaped like a slice of CogVideoX 5B: ours beside random initialisation and copying."""

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import ours
from ..harness import MIN_ROUNDS, OURS, Row, Setting, time_rows

MIB = 2**20
ROUNDS = 3
COPY, EMPTY = "init, cast, copy", "to_empty, copy"


Ways = dict[str, Callable[[], Any]]


def times(setting: Setting) -> Iterator[Row]:
    """Seconds by way of loading."""
    with _ways(setting) as (size, _, ways):
        parity = _assert_same(ways)
        yield from time_rows(size, ways, replace(setting, max_rounds=MIN_ROUNDS), parity)


def counts(setting: Setting) -> Iterator[Row]:
    """Peak anonymous memory by way of loading, as a share of the file."""
    with _ways(setting) as (size, mib, ways):
        shares: dict[str, list[float]] = {name: [] for name in ways}
        for done in range(ROUNDS):
            for name in list(ways)[:: 1 if done % 2 else -1]:
                gc.collect()
                shares[name].append(_anonymous_peak(ways[name]) / mib)
        yield Row(size, "anonymous share of file", shares)


@contextmanager
def _ways(setting: Setting) -> Iterator[tuple[str, float, Ways]]:
    """(size, MiB, ways of loading) of a file that is written first."""
    config = ours.config("cogvideox", "diffusion_model", num_layers=3 if setting.full else 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slice.safetensors"
        _write(config, file)
        mib = file.stat().st_size / MIB
        ways: Ways = {
            OURS: lambda: _ours(file),
            COPY: lambda: _copied(config, file),
            EMPTY: lambda: _emptied(config, file),
        }
        yield f"{mib:.0f} MiB", mib, ways


def _write(config, file: Path) -> None:
    from safetensors.torch import save_file

    meta = ours.network("cogvideox", "diffusion_model", config, torch.bfloat16, "meta")
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

    model = ours.part("cogvideox", "diffusion_model").build(config).to(torch.bfloat16)
    model.load_state_dict(load_file(file))
    return model


def _emptied(config, file: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    model = ours.network("cogvideox", "diffusion_model", config, torch.bfloat16, "cpu")
    model.load_state_dict(load_file(file))
    return model


def _assert_same(ways: Ways) -> dict[str, float]:
    models = {name: way().state_dict() for name, way in ways.items()}
    for name, weights in models.items():
        if not all(torch.equal(weights[key], value) for key, value in models[OURS].items()):
            raise AssertionError(f"{name} loads other weights than ours.")
    return {name: 0.0 for name in ways if name != OURS}


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
