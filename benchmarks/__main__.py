"""`python -m benchmarks run --suite smoke --json out.json`, then `report out.json` and `check out.json`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import report
from .cases import NAMES

HERE = Path(__file__).resolve().parent
PEERS = ("all", "none", "diffusers", "diffsynth", "host")


def run_case(case: str, setting: dict[str, Any]) -> tuple[dict[str, Any] | None, list[dict], str | None]:
    """(machine, rows, what went wrong) of one case in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "worker.py"), case, json.dumps(setting)]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=HERE.parent
        )
        for line in worker.stdout or ():
            if line.startswith('{"'):
                lines.append(json.loads(line))
                print(f"{case}: {len(lines) - 1} rows", file=sys.stderr, flush=True)
        trouble = None
        if worker.wait():
            errors.seek(0)
            text = errors.read()
            sys.stderr.write(text[-3000:])
            trouble = (text.strip().splitlines() or [f"exit status {worker.returncode}"])[-1]
    machine = next((line["machine"] for line in lines if "machine" in line), None)
    return machine, [line["row"] for line in lines if "row" in line], trouble


def run(options: argparse.Namespace) -> int:
    """Run the cases one after another; the exit status is 1 when one broke."""
    setting = {"suite": options.suite, "device": options.device, "peers": options.peers}
    results: dict[str, Any] = {"setting": setting, "machine": {}, "rows": [], "failed": {}, "seconds": {}}
    for case in options.cases or NAMES:
        start = time.time()
        machine, rows, trouble = run_case(case, setting)
        results["machine"] = machine or results["machine"]
        results["rows"] += rows
        results["seconds"][case] = round(time.time() - start, 1)
        if trouble:
            results["failed"][case] = trouble
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    print(report.table(results))
    return int(bool(results["failed"]))


def show(options: argparse.Namespace) -> int:
    """Print the table of a finished run."""
    print(report.table(json.loads(Path(options.results).read_text())))
    return 0


def check(options: argparse.Namespace) -> int:
    """Hold a finished run against the goals; the exit status is 1 when a gate is missed."""
    results = json.loads(Path(options.results).read_text())
    text, good = report.check(results, report.read_goals(Path(options.goals)))
    print(text)
    return int(not good)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="measure")
    runner.add_argument("--suite", choices=("smoke", "full"), default="smoke")
    runner.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    runner.add_argument("--peers", nargs="+", choices=PEERS, default=["all"])
    runner.add_argument("--json", help="write the raw samples here")
    runner.add_argument("--cases", nargs="+", choices=NAMES, metavar="CASE", help=", ".join(NAMES))
    runner.set_defaults(act=run)
    shower = commands.add_parser("report", help="print a finished run")
    shower.add_argument("results")
    shower.set_defaults(act=show)
    checker = commands.add_parser("check", help="hold a finished run against the goals")
    checker.add_argument("results", nargs="?", default="out.json")
    checker.add_argument("--goals", default=str(HERE / "goals.toml"))
    checker.set_defaults(act=check)
    options = parser.parse_args()
    return options.act(options)


if __name__ == "__main__":
    sys.exit(main())
