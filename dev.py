"""Set-up, demo, test, doctor, bench: the developer's and the visitor's one entrance.

Standard library only. Everything it installs lies in `.venv` and `.cache` beside it; delete both and run
it again to start from nothing.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tools import checks, demo, environment, hosts
from tools.commands import ROOT, Trouble, python_path
from tools.server import Server

OLDEST_PYTHON = (3, 10)


def run_demo(wish: argparse.Namespace) -> int:
    host = _host()
    return demo.run(host, prompt=wish.prompt, image=wish.image, cpu=not environment.has_accelerator())


def run_test(wish: argparse.Namespace) -> int:
    host = _host(tests=True)
    return checks.run(newest=host, oldest=hosts.find(hosts.OLDEST), only=wish.only or checks.STAGES)


def run_comfy(wish: argparse.Namespace) -> int:
    host = _host()
    with tempfile.TemporaryDirectory(prefix="kinetograph-") as base:
        arguments = ["--output-directory", str(ROOT / "output")]
        cpu = not environment.has_accelerator()
        shutil.copytree(ROOT / "workflows" / "input", Path(base) / "input")  # what the workflows start from
        with Server(
            python_path(), host, Path(base), cpu=cpu, models=demo.MODELS, arguments=arguments
        ) as server:
            print(f"ComfyUI with Kinetograph is at {server.client.address} (Ctrl-C stops it)", flush=True)
            try:
                while server.is_running():
                    time.sleep(0.5)
            except KeyboardInterrupt:
                print("\nStopped.")
                return 0  # the ordinary end of this command
            raise Trouble(f"{server.tail()}\n\nComfyUI ended by itself; these are its last words.")


def run_doctor(wish: argparse.Namespace) -> int:
    environment.prepare()
    options = ["--json"] * wish.json + ["--hash"] * wish.hash
    return _inside("tools/pack.py", "kinetograph.modules.doctor", str(wish.file.absolute()), *options)


def run_bench(wish: argparse.Namespace) -> int:
    _host(tests=True)
    return _inside("-m", "benchmarks", *wish.arguments)


def _host(tests: bool = False) -> Path:
    """Set up the environment for the host in use, and return the host's folder."""
    environment.prepare()
    host = hosts.find()
    environment.prepare(host, tests)
    return host


def _inside(*arguments: str) -> int:
    return subprocess.run([str(python_path()), *arguments], cwd=ROOT).returncode


def read_wish() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("demo", help="make a video with the real ComfyUI and the pocket model")
    command.add_argument("--prompt", default="a red circle moving left", help="what the video shows")
    command.add_argument("--image", type=Path, help="start from this picture instead of from nothing")
    command.set_defaults(run=run_demo)

    command = commands.add_parser("test", help="lint, types, unit, parity and real-host tests")
    command.add_argument("--only", action="append", choices=checks.STAGES, help="run this stage alone")
    command.set_defaults(run=run_test)

    command = commands.add_parser("doctor", help="say what a weight file is and whether it is complete")
    command.add_argument("file", type=Path, help="a weight file or a diffusers folder")
    command.add_argument("--json", action="store_true", help="answer in JSON")
    command.add_argument("--hash", action="store_true", help="read all of it and compare its SHA-256, too")
    command.set_defaults(run=run_doctor)

    command = commands.add_parser("comfy", help="start ComfyUI with the pack and the pocket models")
    command.set_defaults(run=run_comfy)

    command = commands.add_parser("bench", help="pass the rest on to python -m benchmarks")
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(run=run_bench)
    return parser.parse_args()


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    if sys.version_info < OLDEST_PYTHON:
        print("Kinetograph needs Python 3.10 or newer; run dev.py with a newer one.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)  # so that a server we started is stopped then, too
    wish = read_wish()
    try:
        return wish.run(wish)
    except Trouble as trouble:
        print(f"\n{trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
