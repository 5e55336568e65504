"""Importing the pack where PyTorch and the host are loaded: seconds, resident memory, and no diffusers.

Every sample is a process of its own. The first one finds no bytecode and leaves it to the others, as the first
start after an update does; its time stands apart.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import peers
from ..harness import OURS, Row, Setting

PROBE = Path(__file__).resolve().parents[1] / "import_probe.py"


def times(setting: Setting) -> Iterator[Row]:
    """Three imports with bytecode, five in the full suite, after one without."""
    if peers.host_folder() is None:
        raise RuntimeError("The pack's nodes need the host to be measured: set COMFYUI_PATH.")
    with tempfile.TemporaryDirectory() as folder:
        first, *others = [_probe(folder, setting.device) for _ in range(6 if setting.full else 4)]
    size = f"{first['nodes']} nodes"
    for metric, key in (("CPU s", "cpu"), ("wall s", "wall"), ("extra resident MiB", "mib")):
        yield Row(size, metric, {OURS: [figures[key] for figures in others]}, threads=setting.threads)
    yield Row(size, "CPU s without bytecode", {OURS: [first["cpu"]]}, threads=setting.threads)


def _probe(folder: str, device: str) -> dict[str, Any]:
    """Figures of one import in a process of its own; AssertionError where a package came along that must not."""
    command = [sys.executable, str(PROBE), folder, device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    if figures["strangers"]:
        raise AssertionError(f"The pack imports {', '.join(figures['strangers'])}.")
    return figures
