"""`python -m benchmarks.gpu --folder OUT [--steps NAME ...] [--seconds 300]`: run the steps, print the rows."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from .report import ROWS, read_rows
from .steps import PHASES, STEPS

WORKER = Path(__file__).with_name("worker.py")


def start(step: str, folder: Path, tiny: bool) -> subprocess.Popen:
    """The step as a process; what it prints goes to one log for all."""
    log = (folder / "log.txt").open("a")
    command = [sys.executable, str(WORKER), step, str(folder), *(["tiny"] if tiny else [])]
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=WORKER.parents[2])


def run_phase(steps: list[str], folder: Path, tiny: bool, end: float) -> list[str]:
    """Steps that did not finish in time; they are killed."""
    running = {step: start(step, folder, tiny) for step in steps}
    began = time.monotonic()
    while running and time.monotonic() < end:
        for step, process in list(running.items()):
            if process.poll() is not None:
                print(f"{step}: {time.monotonic() - began:.0f} s, status {process.returncode}", flush=True)
                del running[step]
        time.sleep(0.2)
    for process in running.values():
        process.kill()
        process.wait()
    return list(running)


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
