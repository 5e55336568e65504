"""`python -m tests.campaigns NAME --count N --seed S`: run campaigns on a real ComfyUI, and tell their figures.

The pack is registered by file location as in the tests; its root leaves `sys.path`, where its `nodes/` would hide
the host's.
"""

import argparse
import json
import runpy
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {
    "files": 5000,
    "prompts": 2000,
    "cancels": 100,
    "kills": 40,
    "soak": 200,
    "neighbours": 20,
    "segments": 20,
}


def read_wish(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns", description=__doc__.split(":")[1].strip()
    )
    parser.add_argument(
        "names", nargs="+", choices=[*COUNTS, "all"], metavar="NAME", help=f"{', '.join(COUNTS)} or all"
    )
    parser.add_argument("--count", type=int, help="how many; each campaign has a number of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", default="0.30.0", help="version of ComfyUI, as dev.py fetched it")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args(arguments)


def main(arguments):
    wish = read_wish(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))  # in order
    register()
    names = list(COUNTS) if "all" in wish.names else wish.names
    outcomes = [run_one(name, wish.count or COUNTS[name], wish.seed, wish.host) for name in names]
    told = [outcome.to_json() for outcome in outcomes]
    sys.stdout.write(json.dumps(told) + "\n")
    if wish.json:
        wish.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def register():
    """Make the pack importable as `kinetograph`, and only so."""
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != ROOT]
    runpy.run_path(str(ROOT / "tools" / "pack.py"))["register"]()


def run_one(name, count, seed, version):
    """One campaign on a base directory of its own."""
    from kinetograph.tests.campaigns.ground import Ground, write_models
    from kinetograph.tools import hosts

    host, started = hosts.find(version), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kinetograph-") as folder:
        Path(folder).chmod(0o755)  # a child without the rights of root reads in it
        base = write_models(Path(folder) / "base")
        ground = Ground(host, base)
        second = Ground(host, write_models(Path(folder) / "second"), output=ground.output)
        grounds = (ground, second) if name == "neighbours" else (ground,)
        try:
            outcome = import_module(f"kinetograph.tests.campaigns.{name}").run(count, seed, *grounds)
        finally:
            ground.close()
            second.close()
    outcome.figures["seconds"] = round(time.monotonic() - started)
    sys.stdout.write(outcome.to_text() + "\n\n")
    sys.stdout.flush()
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
