"""One case in a process of its own: `python benchmarks/worker.py CASE SETTING-JSON`; rows as JSON lines."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def register_pack() -> None:
    """Import the pack by file location, as ComfyUI does; its root never comes onto `sys.path`."""
    sys.path[:] = [
        entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, ROOT / "benchmarks")
    ]
    spec = importlib.util.spec_from_file_location(
        "kinetograph", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["kinetograph"] = pack
    spec.loader.exec_module(pack)


def main(case: str, setting: str) -> None:
    register_pack()
    import torch

    torch.set_num_threads(1)
    harness = importlib.import_module("kinetograph.benchmarks.harness")
    words = json.loads(setting)
    words["peers"] = frozenset(words["peers"])
    module = importlib.import_module(f"kinetograph.benchmarks.cases.{case}")
    print(json.dumps({"machine": harness.machine()}), flush=True)
    for row in module.run(harness.Setting(**words)):
        row.case = case
        print(json.dumps({"row": row.as_dict()}), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1], sys.argv[2])
