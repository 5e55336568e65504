"""Registers the pack by file location, as ComfyUI does, under the name `kinetograph`.

The pack root must never be on `sys.path`: its `nodes/` would hide the host's `nodes.py`.
"""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

runpy.run_path(str(ROOT / "tools" / "pack.py"))["register"]()

from kinetograph.tests.network.watch import network  # noqa: E402, F401  a fixture of every session
