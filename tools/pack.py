"""Runs one of the pack's modules from a shell: `python tools/pack.py kinetograph.modules.… ARGUMENTS`.

The pack is registered by file location, as ComfyUI does it.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def register() -> None:
    """Make the pack importable as `kinetograph` in this process."""
    if "kinetograph" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "kinetograph", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules["kinetograph"] = pack
    spec.loader.exec_module(pack)


if __name__ == "__main__":
    sys.path.pop(0)
    register()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
