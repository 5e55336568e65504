"""Weight files on disk: headers read without the weights, weights mapped without a copy.

Only safetensors is opened, always by the format's own Rust parser, which checks every range before a
tensor exists. What cannot be opened is described by `trouble`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .trouble import CheckpointError, diagnose

INDEX_SUFFIX = ".safetensors.index.json"
SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors")
MAX_JSON_BYTES = 64 * 2**20
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Header:
    """What a set of weight files says about itself before any weight is read."""

    name: str  # what to call it before a user: a file or folder name, never a path
    files: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]  # in the format's words: F16, BF16, F8_E4M3
    metadata: Mapping[str, str]
    settings: Mapping[str, Any] | None = (
        None  # config.json of a folder of its own, or the metadata's "config"
    )

    @cached_property
    def parameters(self) -> int:
        """How many numbers the files hold."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def dtype(self) -> str:
        """The dtype that most of the numbers have, in torch's words."""
        return main_dtype(self.shapes, self.dtypes)


def main_dtype(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> str:
    """The dtype with the most numbers, as torch names it (`bfloat16`); "none" without keys."""
    counts: dict[str, int] = {}
    for key, shape in shapes.items():
        counts[dtypes[key]] = counts.get(dtypes[key], 0) + prod(shape)
    if not counts:
        return "none"
    word = max(counts, key=lambda name: counts[name])
    return str(DTYPES[word]).removeprefix("torch.") if word in DTYPES else word


def read_header(path: str | Path) -> Header:
    """Keys, shapes, dtypes, metadata and settings of a file, a sharded set or a component folder.

    Takes milliseconds whatever the size of the weights. CheckpointError says what is wrong and what to do.
    """
    path = Path(path)
    files = weight_files(path)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for file in files:
        with opened(file) as weights:
            metadata.update(weights.metadata() or {})
            for key in weights.keys():  # noqa: SIM118 - the handle is no mapping
                if key in shapes:
                    raise CheckpointError(
                        f"{path.name}: the key {key} is in more than one of its files ({file.name} is one). "
                        "Leave only one set of weights in the folder, or choose a single file."
                    )
                part = weights.get_slice(key)
                shapes[key], dtypes[key] = tuple(part.get_shape()), part.get_dtype()
    _check_index(path, shapes)
    return Header(path.name, files, shapes, dtypes, metadata, _settings(path, files, metadata))


def open_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor of a file, sharded set or component folder, mapped from disk and not copied."""
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(Path(path)):
        with opened(file) as weights:
            for key in weights.keys():  # noqa: SIM118
                tensors[key] = weights.get_tensor(key)
    return tensors


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The Rust parser's handle on one safetensors file; CheckpointError for whatever it refuses."""
    try:
        if file.stat().st_size == 0:  # an empty file cannot be mapped: say so before trying
            raise CheckpointError(diagnose(file))
        handle = safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError, MemoryError):
        raise CheckpointError(diagnose(file)) from None
    try:
        with handle as weights:
            yield weights
    except (SafetensorError, OSError):
        raise CheckpointError(diagnose(file)) from None


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights `path` stands for: itself, its shards, or a folder's only set."""
    if path.is_dir():
        return _folder_files(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed_files(path)
    if shard := SHARD.fullmatch(path.name):
        index = path.with_name(shard.group(1) + INDEX_SUFFIX)
        return _indexed_files(index) if index.is_file() else _numbered_files(path, shard)
    return (path,)


def component_folders(path: str | Path) -> dict[str, Path]:
    """{component: folder} of a diffusers pipeline folder (transformer, vae, text_encoder); else empty."""
    path = Path(path)
    if not path.is_dir():
        return {}
    return {child.name: child for child in sorted(path.iterdir()) if child.is_dir() and _has_weights(child)}


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _folder_files(folder: Path) -> tuple[Path, ...]:
    indices = sorted(folder.glob("*" + INDEX_SUFFIX))
    if len(indices) == 1:
        return _indexed_files(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(_nothing_in(folder))
    if shard := SHARD.fullmatch(files[0].name):
        return _numbered_files(files[0], shard)
    if whole := _without_variants(files):
        return (whole,)
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise CheckpointError(
            f"The folder {folder.name} holds {len(files)} weight files ({names}). Choose one of the files."
        )
    return (files[0],)


def _without_variants(files: list[Path]) -> Path | None:
    """The file that diffusers loads by default: `x.safetensors` where all others are `x.fp16.safetensors` and such."""
    for file in files:
        if all(other is file or other.name.startswith(file.stem + ".") for other in files):
            return file
    return None


def _nothing_in(folder: Path) -> str:
    found = ", ".join(sorted(component_folders(folder)))
    if found:
        return f"The folder {folder.name} holds a whole pipeline ({found}). Choose one of these folders."
    return (
        f"The folder {folder.name} holds no .safetensors file. Download the folder's weights in safetensors "
        "format, or choose a file."
    )


def _indexed_files(index: Path) -> tuple[Path, ...]:
    names = sorted({str(name) for name in _weight_map(index).values()})
    if any(Path(name).name != name or "\\" in name for name in names):
        raise CheckpointError(f"{index.name} points outside its folder. Download the index again.")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.name} names {len(names)} files, {len(missing)} are not there: {', '.join(missing[:5])}. "
            "Download them into the same folder."
        )
    return tuple(index.parent / name for name in names)


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index.name} has no weight_map. Download the index again.")
    return weight_map


def _numbered_files(path: Path, shard: re.Match[str]) -> tuple[Path, ...]:
    stem, total = shard.group(1), int(shard.group(3))
    files = tuple(sorted(path.parent.glob(f"*-of-{shard.group(3)}.safetensors")))
    files = tuple(file for file in files if file.name.startswith(stem + "-"))
    if len(files) != total:
        raise CheckpointError(
            f"{path.name} is one of {total} files, {len(files)} are there. "
            "Download the others into the same folder."
        )
    return files


def _check_index(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    indices = sorted(path.glob("*" + INDEX_SUFFIX)) if path.is_dir() else [path]
    if len(indices) != 1 or not indices[0].name.endswith(INDEX_SUFFIX):
        return
    missing = sorted(set(_weight_map(indices[0])) - set(shapes))
    if missing:
        raise CheckpointError(
            f"{indices[0].name} names {len(missing)} keys that its files do not hold: "
            f"{', '.join(missing[:5])}. Download the files again."
        )


def _settings(path: Path, files: tuple[Path, ...], metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """config.json where the weights have a folder of their own, else the metadata's "config"."""
    folder = path if path.is_dir() else path.parent
    beside = folder / "config.json"
    if beside.is_file() and {*folder.glob("*.safetensors")} == {*files}:
        return read_json(beside)
    try:
        embedded = json.loads(metadata["config"]) if "config" in metadata else None
    except ValueError:
        return None  # other programs write other things under this name
    return embedded if isinstance(embedded, dict) else None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a small file; CheckpointError when it is none."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{file.name} is too large to be a settings file. Download it again.")
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file.name} is not readable JSON. Download it again.") from None
    except OSError as error:
        raise CheckpointError(f"{file.name} cannot be read: {error.strerror}.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file.name} holds no JSON object. Download it again.")
    return content
