"""Registers the pack by file location, as ComfyUI does, under the name `kinetograph`.

The pack root must never be on `sys.path`: its `nodes/` would hide the host's `nodes.py`.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def register_pack():
    if "kinetograph" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "kinetograph", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["kinetograph"] = pack
    if (ROOT / "__init__.py").exists():
        spec.loader.exec_module(pack)


register_pack()
