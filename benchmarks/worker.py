"""One part of one case in a process of its own: `python benchmarks/worker.py MODULE times|counts SETTING-JSON`.

Rows are JSON lines on the standard output; the last line tells the CPU time of the process and the most memory it held.
"""

import importlib
import importlib.util
import json
import resource
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


def main(module: str, part: str, setting: str) -> None:
    register_pack()
    import torch

    harness = importlib.import_module("kinetograph.benchmarks.harness")
    words = json.loads(setting)
    torch.set_num_threads(words["threads"])
    words["peers"] = frozenset(words["peers"])
    case = importlib.import_module(f"kinetograph.benchmarks.{module}")
    print(json.dumps({"machine": harness.machine()}), flush=True)
    for row in getattr(case, part)(harness.Setting(**words)):
        row.case = words["case"]
        print(json.dumps({"row": row.as_dict()}), flush=True)
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    figures = {"cpu_seconds": round(seconds, 1), "resident_gib": round(own.ru_maxrss / 2**20, 2)}
    print(json.dumps({"process": figures}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
