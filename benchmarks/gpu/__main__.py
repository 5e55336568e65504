"""`python -m benchmarks.gpu --folder OUT [--steps NAME ...] [--seconds 300]`: run the steps, print the rows."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .report import ROWS, read_rows
from .steps import LIMIT, LIMITS, PHASES, STEPS

WORKER = Path(__file__).with_name("worker.py")


def start(step: str, folder: Path, tiny: bool) -> subprocess.Popen:
    """The step as a process; what it prints goes to one log for all."""
    log = (folder / "log.txt").open("a")
    command = [sys.executable, str(WORKER), step, str(folder), *(["tiny"] if tiny else [])]
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=WORKER.parents[2], start_new_session=True)


def run_phase(steps: list[str], folder: Path, tiny: bool, end: float) -> list[str]:
    """Steps that did not finish by their limits or by `end`; they are killed. A rehearsal has `end` alone."""
    began = time.monotonic()
    limits = {step: end if tiny else min(end, began + LIMITS.get(step, LIMIT)) for step in steps}
    running = {step: start(step, folder, tiny) for step in steps}
    late = []
    try:
        while running:
            for step, process in list(running.items()):
                now = time.monotonic()
                if process.poll() is None and now < limits[step]:
                    continue
                if process.poll() is None:
                    late.append(step)
                    stop(process)
                print(f"{step}: {now - began:.0f} s, status {process.returncode}", flush=True)
                del running[step]
            time.sleep(0.2)
    finally:
        for process in running.values():
            stop(process)
    return late


def stop(process: subprocess.Popen) -> None:
    """End a step with the compilers that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(rows: list[dict]) -> None:
    """Every row on a line, without the raw samples."""
    for row in rows:
        words = {key: value for key, value in row.items() if key not in ("step", "name", "samples", "where")}
        print(f"{row['step']} | {row['name']} | {json.dumps(words)[:300]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where rows, log and work files go")
    parser.add_argument("--steps", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--seconds", type=float, default=1500.0, help="stop after so long")
    parser.add_argument("--tiny", action="store_true", help="rehearse with small models, also without a card")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no step outlives this process
    options.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.seconds
    late = []
    for phase in PHASES:
        wanted = [step for step in phase if not options.steps or step in options.steps]
        late += run_phase(wanted, options.folder.resolve(), options.tiny, end)
    show(read_rows(options.folder))
    print(f"Rows are in {options.folder / ROWS}." + f" Not finished: {', '.join(late)}." * bool(late))


if __name__ == "__main__":
    main()
