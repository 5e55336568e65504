"""One step in a process of its own: `python benchmarks/gpu/worker.py STEP FOLDER [tiny]`."""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def register_pack() -> None:
    """Import the pack by file location, as ComfyUI does; its root never comes onto `sys.path`."""
    here = Path(__file__).resolve()
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in here.parents[:3]]
    spec = importlib.util.spec_from_file_location(
        "kinetograph", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["kinetograph"] = pack
    spec.loader.exec_module(pack)


def main(step: str, folder: str, size: str = "full") -> None:
    register_pack()
    report = importlib.import_module("kinetograph.benchmarks.gpu.report")
    steps = importlib.import_module("kinetograph.benchmarks.gpu.steps")
    module, function, arguments = steps.STEPS[step]
    paper = report.Report(Path(folder), step, size == "tiny")
    with paper.guarded("step"):
        work = importlib.import_module(f"kinetograph.benchmarks.gpu.{module}")
        getattr(work, function)(paper, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
