"""A weight file onto the disk: whole or not at all, and never over another one unless that is meant."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...videofile.errors import reason
from ...videofile.workspace import appear, flush, flush_folder
from ...weights.errors import shown
from ..state import fill

# of a header, for each tensor
HEADER_BYTES = 300


def check_room(folder: Path, num_bytes: int) -> None:
    """ValueError unless a file of so many bytes fits on the disk of a folder."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise ValueError(
            f"The disk is too full for what is written: {num_bytes / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free. "
            "Free some space, or choose another folder."
        )


def store(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], over: bool = False) -> Path:
    """Write a safetensors file beside its place, then give it its name.

    ValueError where a file has that name and is not to be replaced, where the disk is too full, or for whatever the
    system refuses; what was there before stays.
    """
    num_bytes = sum(value.nbytes + HEADER_BYTES for value in tensors.values()) + sum(
        map(len, metadata.values())
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, num_bytes)
        _appear(path, tensors, metadata, over)
        flush_folder(path.parent)
    except OSError as error:
        raise ValueError(f"{shown(path.name)} could not be written: {reason(error)}.") from error
    except SafetensorError as error:
        raise ValueError(f"{shown(path.name)} could not be written: {error}.") from error
    return path


def _appear(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], over: bool) -> None:
    """Fill a file beside its place, then give it its name; ValueError where that is taken."""
    beside, taken = path.with_name(f".{path.name}.part"), path.exists() and not over
    try:
        if not taken:
            fill(beside, lambda path: save_file(dict(tensors), path, dict(metadata)))
            flush(beside)
        if over:
            os.replace(beside, path)
        elif taken or not appear(beside, path):
            raise ValueError(f"{shown(path.name)} is there already: choose another name, or delete it first.")
    finally:
        beside.unlink(missing_ok=True)
