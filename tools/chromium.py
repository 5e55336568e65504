"""The browser of the tests that open ComfyUI's page: found on this machine, or installed where CI is set."""

import os
import shutil
import subprocess
from pathlib import Path

from .commands import Trouble

VARIABLE = "CHROMIUM"
# Debian's own program comes before its wrapper, which is a shell script
NAMES = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
MISSING = f"no Chromium on this machine: install one, or name its program in the variable {VARIABLE}"


def prepare() -> Path | None:
    """The browser's program, which is installed where CI is set; None where there is none and none is to come.

    Raises `Trouble` when the variable names no program, or when the installation fails.
    """
    program = find()
    if program is not None or not os.environ.get("CI"):
        return program
    install()
    program = find()
    if program is None:
        raise Trouble(f"The package chromium was installed, but there is {MISSING}.")
    return program


def find() -> Path | None:
    """The program that CHROMIUM names, or one of its usual names; None where there is none."""
    wish = os.environ.get(VARIABLE)
    if wish:
        if not shutil.which(wish):
            raise Trouble(f"{VARIABLE} is {wish}, which is no program: name a Chromium, or unset it.")
        return Path(wish)
    programs = (shutil.which(name) for name in NAMES)
    return next((Path(program) for program in programs if program), None)


def install() -> None:
    """Install Debian's package chromium, as root or through sudo. Raises `Trouble` with the last words of a failure."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise Trouble(f"There is {MISSING}. It cannot be installed here, for there is no apt-get.")
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print("Setting up: chromium", flush=True)
    try:
        # what is known already may do where a list cannot be fetched
        _run([*rights, apt, "update"])
        done = _run([*rights, apt, "install", "-y", "--no-install-recommends", "chromium"])
    except OSError as error:
        raise Trouble(f"There is {MISSING}. Its installation needs root or sudo: {error}") from error
    if done.returncode:
        words = "\n".join(done.stdout.splitlines()[-10:])
        raise Trouble(f"{words}\n\nThere is {MISSING}. The installation with apt-get failed, see above.")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
