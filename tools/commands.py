"""Runs a program inside the environment, with its words in a log, and says what to do when it fails."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
CACHE = ROOT / ".cache"
LOG = CACHE / "setup.log"
TAIL_LINES = 25


class Trouble(Exception):
    """Something that the person at the keyboard can mend; the text says how."""


def python_path() -> Path:
    """The environment's interpreter."""
    return ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run_logged(arguments: Sequence[str]) -> None:
    """Run the environment's Python silently. Raises `Trouble` with the log's tail when that fails."""
    command = [str(python_path()), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    CACHE.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n{done.stdout}")
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        raise Trouble(
            f"{tail}\n\nThis step failed. Its whole output is in {LOG}. Check the network connection and the "
            f"free disk space (3 GB are needed), then run the same command again: finished steps are kept."
        )
