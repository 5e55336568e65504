"""Save Trained: a finished training's file into the model folder that it belongs in, and onto a MODEL."""

import filecmp
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...modules.doctor import examine
from ...modules.lora_origin import FOLDER
from ...modules.training.files.storing import check_room
from ...modules.videofile.errors import reason
from ...modules.videofile.workspace import appear, flush, flush_folder
from ..host import files, progress, results
from ..host import training as host
from ..host.api import io, ui
from ..host.folders import paths_of
from . import exvideo, lora_stack, models, motion, training
from .training_runs import name_problem

NODE = "Save Trained"
UNKNOWN = "unknown"
# of a file that nobody knows the place of
ANY = "diffusion_models"
MOST = 10_000
LOADED = (
    "{name} in models/{folder} holds whole weights, which are no change of a MODEL: open it with its loader after a refresh "
    "(press R)."
)


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    name: str
    # as the recipe has it
    part: str
    file: Path


def find_run(name: str) -> Trained:
    """A run by its name; ValueError where there is none, or where it is not finished."""
    if (problem := name_problem(name)) is not None:
        raise ValueError(problem.replace("name", "run", 1))
    folder = files.training_directory() / name
    try:
        part = json.loads((folder / training.RECIPE).read_text(encoding="utf-8"))["part"]["name"]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"There is no training {name!r} below output/training: connect run of Train Video Model, or type the name of "
            "an earlier one."
        ) from None
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        raise ValueError(f"The training {name!r} is not finished: run it to its last step first.")
    return Trained(name, part, file)


def save(run: str, filename: str, model: Any, strength: float) -> io.NodeOutput:
    """(MODEL with what was trained, its name in the lists, report).

    ValueError for a run that is none, a disk that is too full, and a MODEL that the file does not fit: it is saved then.
    """
    trained = find_run(run)
    folder = folder_of(trained.file)
    path = place(trained.file, _root(folder), filename or trained.name)
    results.remember(path)
    name = f"{folder}/{path.name}" if folder in models.MODELS.own else path.name
    said = [f"{path.name} is in models/{folder}: {trained.part} of the training {trained.name}."]
    if model is None:
        changed = host.withheld(f"{NODE} has no MODEL to put {path.name} on: connect one.")
    else:
        changed, report = put_on(model, trained.part, name, strength)
        said += [report] if report else []
    text = "\n".join(said)
    progress.tell(text)
    return io.NodeOutput(changed, name, text, ui=ui.PreviewText(text))


def folder_of(file: Path) -> str:
    """The key of the model folder that a trained file belongs in, by what it holds."""
    folder = str(examine(file).to_json()["folder"])
    return ANY if folder == UNKNOWN or not paths_of(folder) else folder


def _root(folder: str) -> Path:
    """The first path of a model folder, but not the one that bears a name of former days (models/unet)."""
    paths = paths_of(folder)
    return next((path for path in paths if path.name == folder), paths[0])


def place(file: Path, folder: Path, name: str) -> Path:
    """Copy a file under a name that is not taken, by a number behind it; the same bytes are not stored twice.

    ValueError for a disk that is too full, or whatever the system refuses: nothing is left behind then.
    """
    beside = folder / f".{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in _names(folder, name):
            if path.exists():
                if filecmp.cmp(file, path, shallow=False):
                    return path
                continue
            if not beside.exists():
                check_room(folder, file.stat().st_size)
                shutil.copyfile(file, beside)
                flush(beside)
            if appear(beside, path):
                flush_folder(folder)
                return path
        raise ValueError(f"{name} has {MOST} numbers already: choose another filename.")
    except OSError as error:
        raise ValueError(f"{name} could not be written into {folder}: {reason(error)}.") from error
    finally:
        beside.unlink(missing_ok=True)


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / f"{name}.safetensors"
    for number in range(2, MOST):
        yield folder / f"{name}-{number}.safetensors"


def put_on(model: Any, part: str, name: str, strength: float) -> tuple[Any, str]:
    """(a MODEL with what was trained, what was changed). ValueError where it does not fit."""
    if part in ("lora", "motion_lora", "domain_adapter"):
        row = lora_stack.Row(name, strength, strength)
        changed, _, report = lora_stack.stack(model, None, [row], lora_stack.Wish(False, 1.0))
        return changed, report
    if part == "motion_module":
        settings = motion.Settings(strength, motion.AS_TRAINED, motion.FROM_FILE, 0)
        return motion.apply(model, name, settings, NODE), ""
    if part == "exvideo":
        return exvideo.extend(model, name, NODE), ""
    folder, _, file = name.rpartition("/")
    return host.withheld(LOADED.format(name=file, folder=folder or FOLDER)), ""
