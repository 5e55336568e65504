"""`python -m benchmarks run --suite smoke --json out.json`, then `report out.json` and `check out.json`.

`python -m benchmarks compare OLD_CHECKOUT` runs this checkout's networks beside those of another one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import report
from .cases import NAMES

HERE = Path(__file__).resolve().parent
PEERS = ("all", "none", "diffusers", "diffsynth", "host")
COMPARED = ("cog_dit", "cog_vae", "svd_unet", "svd_vae")
TIMES, COUNTS = "times", "counts"
MOST_ROUNDS = 15  # of a comparison, whose band is narrow


def all_threads() -> int:
    """How many threads this machine runs at once for us."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def passes(module: Path, device: str, threads: list[int]) -> Iterator[tuple[str, int]]:
    """(part of a case, threads) of every process that a case takes: counts once, times for each number of threads."""
    source = module.read_text(encoding="utf-8")
    if f"\ndef {COUNTS}(" in source and device == "cpu":
        yield COUNTS, 1
    if f"\ndef {TIMES}(" in source:
        for number in threads:
            yield TIMES, number


def run_pass(module: str, part: str, setting: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """(lines, what went wrong) of one part of a case in a process of its own.

    Threads that wait for others sleep: where a core is busy elsewhere, OpenMP's usual spinning was four fifths of the
    CPU time with two threads, and measures the neighbours.
    """
    threads = str(setting["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["OMP_WAIT_POLICY"] = "passive"
    command = [sys.executable, str(HERE / "worker.py"), module, part, json.dumps(setting)]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=HERE.parent
        )
        for line in worker.stdout or ():
            if line.startswith('{"'):
                lines.append(json.loads(line))
        if not worker.wait():
            return lines, None
        errors.seek(0)
        text = errors.read()
        sys.stderr.write(text[-3000:])
        return lines, (text.strip().splitlines() or [f"exit status {worker.returncode}"])[-1]


def collect(
    cases: dict[str, str], setting: dict[str, Any], threads: list[int], file: str | None
) -> dict[str, Any]:
    """Results of cases, each a name and a module; the processes run one after another, each adds to `file`."""
    results: dict[str, Any] = {"setting": {**setting, "threads": threads}, "machine": {}, "rows": []}
    results |= {"failed": {}, "processes": []}
    for case, module in cases.items():
        for part, number in passes(HERE / f"{module.replace('.', '/')}.py", setting["device"], threads):
            start = time.monotonic()
            lines, trouble = run_pass(module, part, {**setting, "case": case, "threads": number})
            process: dict[str, Any] = {"case": case, "part": part, "threads": number}
            process["seconds"] = round(time.monotonic() - start, 1)
            for line in lines:
                results["machine"] = line.get("machine", results["machine"])
                results["rows"] += [line["row"]] if "row" in line else []
                process |= line.get("process", {})
            results["processes"].append(process)
            print(json.dumps(process), file=sys.stderr, flush=True)
            if trouble:
                results["failed"][f"{case}, {part}, threads {number}"] = trouble
            if file:
                Path(file).write_text(json.dumps(results, indent=1))
    return results


def run(options: argparse.Namespace) -> int:
    """Run the cases one after another; the exit status is 1 when one broke."""
    setting = {"suite": options.suite, "device": options.device, "peers": options.peers}
    threads = [all_threads()] if options.device == "cuda" else options.threads
    cases = {case: f"cases.{case}" for case in options.cases or NAMES}
    results = collect(cases, setting, threads, options.json)
    print(report.table(results))
    return int(bool(results["failed"]))


def compare(options: argparse.Namespace) -> int:
    """Both checkouts in the same processes; 1 where the new one is slower than a tie or holds a byte more."""
    setting = {"suite": options.suite, "device": "cpu", "peers": [], "old": str(options.old.resolve())}
    setting["max_rounds"] = MOST_ROUNDS
    cases = {case: "checkouts" for case in options.cases or COMPARED}
    results = collect(cases, setting, options.threads, options.json)
    text, good = report.comparison(results)
    print(f"{report.table(results)}\n\n{text}")
    return int(not good)


def show(options: argparse.Namespace) -> int:
    """Print the table of a finished run."""
    print(report.table(json.loads(Path(options.results).read_text())))
    return 0


def check(options: argparse.Namespace) -> int:
    """Hold a finished run against the goals; the exit status is 1 when one is missed or a case broke."""
    results = json.loads(Path(options.results).read_text())
    text, good = report.check(results, report.read_goals(Path(options.goals)))
    print(text)
    return int(not good)


def measuring(commands: Any, name: str, purpose: str, cases: tuple[str, ...]) -> argparse.ArgumentParser:
    """A command that runs cases."""
    command = commands.add_parser(name, help=purpose)
    command.add_argument("--suite", choices=("smoke", "full"), default="smoke")
    command.add_argument("--json", help="write the raw samples here")
    command.add_argument("--cases", nargs="+", choices=cases, metavar="CASE", help=", ".join(cases))
    numbers = sorted({1, all_threads()})
    command.add_argument("--threads", nargs="+", type=int, default=numbers, help="default: one, and all")
    return command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    runner = measuring(commands, "run", "measure", tuple(NAMES))
    runner.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    runner.add_argument("--peers", nargs="+", choices=PEERS, default=["all"])
    runner.set_defaults(act=run)
    comparer = measuring(commands, "compare", "measure beside another checkout", COMPARED)
    comparer.add_argument("old", type=Path, metavar="OLD_CHECKOUT")
    comparer.set_defaults(act=compare)
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
