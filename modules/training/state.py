"""Where a training was stopped, on disk: tensors as safetensors, all else as JSON, whole or not at all.

The JSON file names the tensors' file and is renamed into its place last: a run that ends at any moment leaves the state
before or the state after, never half of one. Random numbers need none (`draws.py`).
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FACTS = "state.json"
# folder of files that are not whole yet
WRITING = ".writing"


@dataclass(frozen=True)
class State:
    """A training after so many steps."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save(folder: Path, state: State) -> None:
    """Write a state in place of the one before. OSError where there is no room: that one stays."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / WRITING
    # of a run that was killed while it wrote; the library that writes tensors leaves files of its own
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    name = f"state-{state.step:08d}.safetensors"
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
    place(folder / name, lambda path: save_file(tensors, path, metadata={"format": "pt"}), beside)
    text = json.dumps({"step": state.step, "tensors": name, **state.facts}, indent=2)
    place(folder / FACTS, lambda path: path.write_text(text, encoding="utf-8"), beside)
    shutil.rmtree(beside)
    for older in folder.glob("state-*.safetensors"):
        if older.name != name:
            older.unlink()


def load(folder: Path) -> State | None:
    """The last state of a run; None where there is none. ValueError for one that cannot be read."""
    file = folder / FACTS
    if not file.exists():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        tensors = load_file(folder / facts["tensors"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{file} names a training that cannot be gone on with ({error}). Delete its folder to begin anew."
        ) from None
    return State(facts["step"], tensors, facts)


def place(path: Path, write: Any, folder: Path | None = None, lasting: bool = True) -> None:
    """Have `write` fill a file beside `path`, or in a folder of the same disk, then give it that name.

    `lasting`: it is on the disk before it has the name. Thousands of small files that can be made again need not be.
    """
    # of its own for each process that writes the same
    beside = (folder or path.parent) / f".{path.name}.{os.getpid()}.part"
    try:
        fill(beside, write)
        if lasting:
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def fill(path: Path, write: Any) -> None:
    """Have `write` make a file that others may read where they may read the user's files: those of safetensors are private."""
    path.touch()
    mode = path.stat().st_mode
    write(path)
    path.chmod(mode)
