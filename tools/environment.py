"""A virtual environment with torch, ComfyUI's requirements and ours; each step runs once per wish.

A step writes a stamp with the hash of what was asked; the same wish finds its stamp and is done.
The order matters: torch comes first by itself, and a constraint keeps later steps from replacing it.
"""

import hashlib
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from .commands import CACHE, ENVIRONMENT, ROOT, Trouble, python_path, run_logged

STAMPS = ENVIRONMENT / "kinetograph"
CONSTRAINTS = STAMPS / "constraints.txt"
TORCH = "torch==2.13.0"
COMPANIONS = ("spandrel", "torchvision==0.28.0", "torchaudio==2.11.0")  # would pull in another torch
TEST_PACKAGES = (
    "accelerate",
    "beautifulsoup4",
    "diffusers==0.42.1",
    "ftfy",
    "peft==0.21.2",
    "playwright",
    "pytest",
    "pytest-xdist",
    "pyright[nodejs]",
    "ruff",
)
TEST_PACKAGES_ALONE = ("diffsynth==1.1.9",)


def prepare(host: Path | None = None, tests: bool = False, training: bool = False) -> Path:
    """Make the environment hold what is asked, and return its interpreter. `host` is a ComfyUI folder."""
    _make_environment()
    _step("torch", [TORCH], lambda: _pip(TORCH))
    CONSTRAINTS.write_text(TORCH + "\n")
    if host is not None:
        _install_host(host)
    ours = (ROOT / "requirements.txt").read_text()
    _step("the pack's requirements", [ours], lambda: _pip("-r", str(ROOT / "requirements.txt")))
    if training:
        more = ROOT / "requirements-training.txt"
        _step("training's requirements", [more.read_text()], lambda: _pip("-r", str(more)))
    if tests:
        _step("test packages", TEST_PACKAGES, lambda: _pip(*TEST_PACKAGES))
        _step("references", TEST_PACKAGES_ALONE, lambda: _pip("--no-deps", *TEST_PACKAGES_ALONE))
    return python_path()


def has_accelerator() -> bool:
    """Whether the environment's torch sees a device other than the CPU. Known after a host was installed."""
    return (STAMPS / "device").read_text().strip() != "cpu"


def _make_environment() -> None:
    if not python_path().exists():
        _announce("virtual environment")
        try:
            venv.create(ENVIRONMENT, with_pip=True, clear=ENVIRONMENT.exists())
        except subprocess.CalledProcessError as error:
            raise Trouble(
                "Python could not make a virtual environment with pip in it. On Debian and Ubuntu install "
                "the package python3-venv, then run this again."
            ) from error
    STAMPS.mkdir(exist_ok=True)
    CACHE.mkdir(exist_ok=True)


def _install_host(host: Path) -> None:
    lines = (host / "requirements.txt").read_text().splitlines()
    kept = [
        line for line in lines if not re.match(r"(torch|torchvision|torchaudio|spandrel)\b", line.strip())
    ]
    wanted = STAMPS / f"{host.name}-requirements.txt"
    wanted.write_text("\n".join(kept) + "\n")
    _step(f"requirements of {host.name}", kept, lambda: _pip("-r", str(wanted)))
    _step("companions of torch", COMPANIONS, lambda: _pip("--no-deps", *COMPANIONS))
    repair = Path(__file__).with_name("companions.py")
    _step(
        "check of torch's companions",
        [repair.read_text()],
        lambda: run_logged([str(repair), str(STAMPS / "device")]),
    )


def _step(name: str, wish: Sequence[str], act: Callable[[], None]) -> None:
    """Run `act` unless its stamp says that the same wish was fulfilled in this environment."""
    stamp = STAMPS / (re.sub(r"[^a-z0-9.]+", "-", name.lower()) + ".stamp")
    digest = hashlib.sha256("\n".join([sys.version, *wish]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    _announce(name)
    started = time.monotonic()
    act()
    stamp.write_text(digest)
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def _announce(name: str) -> None:
    print(f"Setting up: {name}", flush=True)


def _pip(*arguments: str) -> None:
    options = ["--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    if CONSTRAINTS.exists():
        options += ["--constraint", str(CONSTRAINTS)]
    run_logged(["-m", "pip", "install", *options, *arguments])
