"""Set-up, demo, run, test, doctor, bench: the developer's and the visitor's one entrance.

Standard library only. Everything it installs lies in `.venv` and `.cache` beside it; delete both and run
it again to start from nothing.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from tools import checks, demo, environment, hosts, run, session
from tools.commands import ROOT, Trouble, python_path

OLDEST_PYTHON = (3, 10)


def run_demo(wish: argparse.Namespace) -> int:
    host = _host()
    return demo.run(host, prompt=wish.prompt, image=wish.image, cpu=not environment.has_accelerator())


def run_template(wish: argparse.Namespace) -> int:
    for folder in wish.models:
        if not folder.is_dir():
            raise Trouble(f"There is no folder of models at {folder}.")
    job = run.plan(wish.template, wish.set, wish.output)  # what is wrong with these is said before all else
    host = _host()
    models = [*hosts.own_models(host), *wish.models]
    return run.run(host, job, cpu=not environment.has_accelerator(), models=models)


def run_test(wish: argparse.Namespace) -> int:
    host = _host(tests=True)
    return checks.run(newest=host, oldest=hosts.find(hosts.OLDEST), only=wish.only or checks.STAGES)


def run_comfy(wish: argparse.Namespace) -> int:
    host = _host()
    cpu = not environment.has_accelerator()
    with session.comfy(host, ROOT / "output", cpu=cpu, models=hosts.own_models(host)) as server:
        print("Kinetograph is in it, its workflows are under Templates (Ctrl-C stops it)", flush=True)
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


def run_fetch(wish: argparse.Namespace) -> int:
    environment.prepare()
    options = [
        f"--{name.replace('_', '-')}" for name in ("list", "without_needs", "check") if vars(wish)[name]
    ]
    options += ["--models", str(wish.models.absolute())] if wish.models else []
    return _inside("tools/pack.py", "kinetograph.tools.fetch", *options, "--", *wish.names)


def run_train(wish: argparse.Namespace) -> int:
    host = _host()
    environment.prepare(host, training=True)
    options = [part for folder in hosts.own_models(host) + wish.models for part in ("--models", str(folder))]
    options += ["--cpu"] * (not environment.has_accelerator()) + ["--output", str(wish.output.absolute())]
    options += ["--data", str(wish.data.absolute())] if wish.data else []
    options += ["--steps", str(wish.steps)] if wish.steps else []
    options += ["--memory"] * wish.memory
    configuration = str(wish.configuration.absolute())
    return _to_its_end(
        "tools/pack.py", "kinetograph.tools.train", configuration, "--host", str(host), *options
    )


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


def _to_its_end(*arguments: str) -> int:
    """The same for what has something to save when it is stopped."""
    process = subprocess.Popen([str(python_path()), *arguments], cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # a terminal's Ctrl-C has reached it already; a signal to this process alone has not
            process.send_signal(signal.SIGTERM)


def read_wish() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("demo", help="make a video with the real ComfyUI and the pocket model")
    command.add_argument("--prompt", default="a red circle moving left", help="what the video shows")
    command.add_argument("--image", type=Path, help="start from this picture instead of from nothing")
    command.set_defaults(run=run_demo)

    command = commands.add_parser("run", help="make what a template makes, with values of your own")
    command.add_argument("template", help="a name from workflows/api, or the file of a prompt")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.WIDGET=VALUE",
        help='such as "Prompt.text=a blue square"; a node by title, class or number; a picture or a video to '
        "load may be a file or an https address",
    )
    command.add_argument("--output", type=Path, default=ROOT / "output", help="where results go")
    command.add_argument(
        "--models", action="append", type=Path, default=[], help="a models folder like ComfyUI's own"
    )
    command.set_defaults(run=run_template)

    command = commands.add_parser("test", help="lint, types, unit, parity, real-host and browser tests")
    command.add_argument("--only", action="append", choices=checks.STAGES, help="run this stage alone")
    command.set_defaults(run=run_test)

    command = commands.add_parser("doctor", help="say what a weight file is and whether it is complete")
    command.add_argument("file", type=Path, help="a weight file or a diffusers folder")
    command.add_argument("--json", action="store_true", help="answer in JSON")
    command.add_argument("--hash", action="store_true", help="read all of it and compare its SHA-256, too")
    command.set_defaults(run=run_doctor)

    command = commands.add_parser("fetch", help="fetch published models into ComfyUI's model folders")
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="a release, such as SVD-XT; --list names all"
    )
    command.add_argument("--models", type=Path, help="models folder; default: that of COMFYUI_PATH")
    command.add_argument("--list", action="store_true", help="name the releases, their size and their page")
    command.add_argument("--without-needs", action="store_true", help="nothing that it needs beside it")
    command.add_argument("--check", action="store_true", help="read what is there already, compare its hash")
    command.set_defaults(run=run_fetch)

    command = commands.add_parser("train", help="train what a configuration names; the same command goes on")
    command.add_argument("configuration", type=Path, help="a TOML file, such as one of configs/training")
    command.add_argument("--data", type=Path, help="folder of the data set; default: the configuration's")
    command.add_argument("--steps", type=int, help="steps in all, in place of the configuration's")
    command.add_argument("--memory", action="store_true", help="say what it would hold at once, and stop")
    command.add_argument(
        "--output", type=Path, default=ROOT / "output" / "training", help="where runs and encoded clips go"
    )
    command.add_argument(
        "--models", action="append", type=Path, default=[], help="a models folder like ComfyUI's own"
    )
    command.set_defaults(run=run_train)

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
