"""The stages of `dev.py test`: all run, whatever fails, and one line sums them up."""

import os
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import chromium
from .commands import CACHE, ROOT, Trouble, python_path

STAGES = ("lint", "types", "unit", "host", "browser", "oldest-host")
WORKERS = str(max(1, min(os.cpu_count() or 1, 4)))  # of one thread each: the models in tests are tiny
OUTCOMES = ("failed", "passed", "skipped", "error")


def run(newest: Path, oldest: Path, only: Sequence[str] = STAGES) -> int:
    """Run the stages, and return 0 only when each succeeded and tests were among them."""
    started = time.monotonic()
    counts: Counter[str] = Counter()
    broken = [name for name in only if not _run_stage(name, newest, oldest, counts)]
    tests_wanted = bool({"unit", "host", "oldest-host"} & set(only))
    if tests_wanted and not counts["passed"]:
        broken.append("no test ran")
    if broken:
        print(f"\nNot well: {', '.join(broken)}")
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    line = f" {said or 'no tests ran'} in {time.monotonic() - started:.2f}s "
    print(line.center(100, "="), flush=True)
    return int(bool(broken))


def _run_stage(name: str, newest: Path, oldest: Path, counts: Counter[str]) -> bool:
    print(f"\n--- {name} ---", flush=True)
    if name == "lint":
        tidy = _run("-m", "ruff", "format", "--check", ".")
        return _run("-m", "ruff", "check", ".") and tidy
    if name == "types":
        return _run("-m", "pyright")
    if name == "unit":
        return _pytest(name, newest, counts, "tests", "--ignore", "tests/host", "--ignore", "tests/browser")
    if name == "browser":
        return _run_browser(newest, counts)
    by_file = ["tests/host", "--dist", "loadfile"]  # a file's tests share a server
    if name == "host":
        return _pytest(name, newest, counts, *by_file)
    return _pytest(name, oldest, counts, *by_file, "-m", "not newest")


def _run_browser(host: Path, counts: Counter[str]) -> bool:
    """One test after the other, for all share a server and a browser; skipped where there is no browser."""
    try:
        program = chromium.prepare()
    except Trouble as trouble:
        print(trouble, flush=True)
        return False
    if program is None:
        print(f"Skipped: {chromium.MISSING}.", flush=True)
        return True
    return _pytest("browser", host, counts, "tests/browser", "-n", "0")


def _run(*arguments: str, **variables: str) -> bool:
    command = [str(python_path()), *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode == 0


def _pytest(name: str, host: Path, counts: Counter[str], *arguments: str) -> bool:
    """Run pytest against one host, and add its outcomes to `counts`."""
    report = CACHE / f"tests-{name}.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "--durations=8", f"--junitxml={report}", "-n", WORKERS]
    variables = {"KINETOGRAPH_HOST": str(host), "OMP_NUM_THREADS": "1"}
    passed = _run("-m", "pytest", *options, *arguments, **variables)
    if report.exists():
        for suite in ElementTree.parse(report).getroot():
            bad = {key: int(suite.get(key, 0)) for key in ("failures", "errors", "skipped")}
            counts["failed"] += bad["failures"]
            counts["error"] += bad["errors"]
            counts["skipped"] += bad["skipped"]
            counts["passed"] += int(suite.get("tests", 0)) - sum(bad.values())
    return passed
