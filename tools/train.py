"""Trains from a shell what a configuration names: `python dev.py train CONFIG.toml`, or under `accelerate launch`.

The host's classes are used in this process; its server is not started. Several processes share a training when
accelerate started them, each with a device of its own.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# where ComfyUI lies, for processes that nobody tells by an argument
HOST = "KINETOGRAPH_COMFYUI"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py train", description=__doc__)
    parser.add_argument("configuration", type=Path, help="a TOML file, such as one of configs/training")
    parser.add_argument("--host", type=Path, help="ComfyUI's folder; default: the one that dev.py set up")
    parser.add_argument(
        "--models", action="append", type=Path, default=[], help="a models folder like ComfyUI's own"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "training", help="where runs go")
    parser.add_argument(
        "--data", type=Path, help="folder of the data set; default: that of the configuration"
    )
    parser.add_argument("--steps", type=int, help="steps in all, in place of the configuration's")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU")
    parser.add_argument("--memory", action="store_true", help="say what it would hold at once, and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: trained; 1: something stands in the way, told on stderr; 130: stopped, the state is kept."""
    choice = read_arguments(arguments)
    try:
        # before the host looks for a device
        shared = processes(choice.cpu)
        cpu = choice.cpu or (shared is not None and shared.device.type == "cpu")
        open_host(choice.host or Path(os.environ[HOST]), cpu, choice.models)
        say(train(choice, shared))
        if shared is not None:
            shared.close()
    except (ValueError, OSError, ArithmeticError) as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last step.", file=sys.stderr)
        return 130
    return 0


def open_host(host: Path, cpu: bool, models: Sequence[Path]) -> None:
    """Make ComfyUI's classes importable, with its model folders and those of this pack.

    ComfyUI is opened by its path, and told what it may compute on before anything of it is.
    """
    sys.path.insert(0, str(host))
    chosen = import_module("comfy.cli_args").args
    chosen.cpu, chosen.use_pytorch_cross_attention = cpu, True
    from kinetograph.nodes.pipeline.models import MODELS

    MODELS.register()
    MODELS.add(models)


def train(choice: argparse.Namespace, shared: Any = None) -> str:
    """The training of a configuration; what it made, for people."""
    import dataclasses

    from kinetograph.modules.training.configuration import read_recipe
    from kinetograph.nodes.pipeline import training, training_models

    recipe = read_recipe(choice.configuration)
    if choice.steps:
        recipe = dataclasses.replace(recipe, steps=dataclasses.replace(recipe.steps, total=choice.steps))
    folder = choice.output / recipe.name
    model, encoders = training_models.load(recipe.model)
    data = choice.data or folder_of(recipe.data.folder, choice.configuration.parent)
    job = training.Job(
        recipe,
        model,
        encoders,
        data,
        folder,
        choice.output / "cache",
        say=say,
        watch=Watch(recipe.steps.total, shared),
    )
    if choice.memory:
        return training.foresee(job)
    outcome = training.train(job, shared)
    return f"{outcome.file} after {outcome.step} steps"


def folder_of(name: str, beside: Path) -> Path:
    """A configuration's data folder: beside it, or else below this project."""
    return next((place / name for place in (beside, ROOT) if (place / name).is_dir()), beside / name)


def processes(cpu: bool = False) -> Any:
    """Those of accelerate where it started this one; None for one alone."""
    if "LOCAL_RANK" not in os.environ:
        return None
    try:
        from .accelerated import Accelerated
    except ModuleNotFoundError as error:
        raise ValueError(
            f'Several processes share a training through accelerate ({error}): run "pip install -r requirements-training.txt".'
        ) from None
    return Accelerated(cpu)


class Watch:
    """A line for the person at the shell, now and then; and Ctrl-C, behind the step that it meets."""

    def __init__(self, total: int, shared: Any = None, seconds: float = 10.0) -> None:
        self.total, self.shared, self.seconds, self.last = total, shared, seconds, 0.0
        self.stopped = self.interrupted = False

    def __call__(self, step: Any, picture: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._leave()
        now = time.monotonic()
        if now - self.last < self.seconds and step.step not in (1, self.total):
            return
        self.last = now
        say(
            f"step {step.step} of {self.total}  loss {step.loss:.5f}  norm {step.norm:.3f}  lr {step.lr:.2e}  "
            f"{step.seconds:.2f} s a step"
        )

    def _stop(self, number: int, frame: Any) -> None:
        """The second Ctrl-C at once; to several processes the launcher sends it twice, and ends who takes too long."""
        if number == signal.SIGINT and self.shared is None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
        self.stopped = True

    def _leave(self) -> None:
        """All processes behind the same step, whichever of them was stopped."""
        stopped = float(self.stopped)
        if self.shared is not None:
            import torch

            stopped = self.shared.mean(torch.tensor(stopped, device=self.shared.device)).item()
        if stopped:
            raise KeyboardInterrupt


def say(text: str) -> None:
    if text and os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
