"""Weight files on disk: headers read without the weights, weights mapped without a copy.

safetensors is opened by the format's own Rust parser, which checks every range before a tensor exists, and what
torch.save wrote by `pickles`, which runs nothing that a file names. A file's beginning says which it is, not its name.
What cannot be opened is described by `diagnosis`.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from .diagnosis import diagnose
from .dtypes import main_dtype
from .errors import CheckpointError, shown, shown_list, special_kind
from .pickles import TorchFile, is_torch_file
from .settings import MARKERS, read_note
from .shards import WeightSet, is_alone, parse_json, read_json, weight_files, weight_set

MAX_KEPT_BYTES = 2**26  # of headers, all together
KEY_BYTES = 200  # of one key's shape, dtype and places, about
SETTLED_SECONDS = 2.0  # how coarsely file systems tell the time


class FileIdentity(NamedTuple):
    """What a file was when it was looked at; -1 where there was none."""

    path: str
    size: int
    changed: int  # nanoseconds
    inode: int

    @property
    def is_settled(self) -> bool:
        """Whether a later change must show: one in the same tick of the file system's clock would not."""
        return abs(time.time() - self.changed / 1e9) > SETTLED_SECONDS

    def is_rewritten(self, now: "FileIdentity") -> bool:
        """Whether the bytes of the file itself became others.

        Not so where another file took its name: whoever has the first one mapped still sees it whole.
        """
        return self.inode == now.inode and self[1:3] != now[1:3]


def file_identity(path: str | Path) -> FileIdentity:
    """Path, size, time of change and inode of a file, which differ once it is rewritten, cut, replaced or gone."""
    try:
        seen = os.stat(path)
    except (OSError, ValueError):
        return FileIdentity(str(path), -1, -1, -1)
    return FileIdentity(str(path), seen.st_size, seen.st_mtime_ns, seen.st_ino)


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


class KeptHeaders:
    """The headers read last, by what their files were; the oldest go when they become many."""

    def __init__(self, most: int = MAX_KEPT_BYTES) -> None:
        self._most = most
        self._headers: OrderedDict[tuple[FileIdentity, ...], tuple[Header, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, files: tuple[FileIdentity, ...]) -> Header | None:
        with self._lock:
            if files not in self._headers:
                return None
            self._headers.move_to_end(files)
            return self._headers[files][0]

    def keep(self, files: tuple[FileIdentity, ...], header: Header) -> None:
        texts = (*header.shapes, *header.metadata, *header.metadata.values())
        settings = [file.size for file in files if file.path.endswith(".json")]
        size = KEY_BYTES * (1 + len(header.shapes)) + sum(map(len, texts)) + sum(settings)
        with self._lock:
            self._headers[files] = header, size
            while sum(size for _, size in self._headers.values()) > self._most:
                self._headers.popitem(last=False)


HEADERS = KeptHeaders()


def read_header(path: str | Path) -> Header:
    """Keys, shapes, dtypes, metadata and settings of a file, a sharded set or a component folder.

    Takes milliseconds whatever the size of the weights, and is read once as long as no file changes.
    CheckpointError says what is wrong and what to do.
    """
    path = Path(path)
    weights = weight_set(path)
    beside = _settings_beside(path, weights.files)
    others = [file for file in (weights.index, beside) if file]
    # looked at before they are read: what changes meanwhile is another identity next time
    files = tuple(file_identity(file) for file in (path, *weights.files, *others))
    header = HEADERS.find(files)
    if header is None:
        header = _read_header(path, weights, beside)
        if all(file.is_settled for file in files):
            HEADERS.keep(files, header)
    return header


def _read_header(path: Path, weights: WeightSet, beside: Path | None) -> Header:
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    metadata: dict[str, str] = {}
    notes: dict[str, int] = {}
    for file in weights.files:
        with opened(file) as handle:
            metadata.update(handle.metadata() or {})
            for key in handle.keys():  # noqa: SIM118 - the handle is no mapping
                if key in shapes:
                    raise CheckpointError(
                        f"{shown(path.name)}: the key {shown(key)} is in more than one of its files "
                        f"({shown(file.name)} is one). Leave only one set of weights in the folder, or choose a "
                        "single file."
                    )
                part = handle.get_slice(key)
                shape = tuple(part.get_shape())
                if note := read_note(key, shape):
                    notes.update(note)
                elif key not in MARKERS:
                    shapes[key], dtypes[key] = shape, part.get_dtype()
    if missing := sorted({*weights.keys} - {*shapes}):
        index = weights.index or path
        raise CheckpointError(
            f"{shown(index.name)} names {len(missing)} keys that its files do not hold: {shown_list(missing)}. "
            "Download the files again."
        )
    settings = read_json(beside) if beside else _embedded(metadata) or notes or None
    return Header(shown(path.name), weights.files, shapes, dtypes, metadata, settings)


def _settings_beside(path: Path, files: tuple[Path, ...]) -> Path | None:
    """config.json where the weights have a folder of their own."""
    beside = (path if os.path.isdir(path) else path.parent) / "config.json"
    if not os.path.lexists(beside):
        return None
    return beside if os.path.isdir(path) or is_alone(files) else None


def _embedded(metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The metadata's "config"; other programs write other things under this name."""
    embedded = parse_json(metadata["config"]) if "config" in metadata else None
    return embedded if isinstance(embedded, dict) else None


def open_weights(path: str | Path, only: Container[str] | None = None) -> dict[str, torch.Tensor]:
    """Every tensor of a file, sharded set or component folder, or those of some keys; mapped from disk and not copied."""
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(Path(path)):
        with opened(file) as weights:
            for key in weights.keys():  # noqa: SIM118
                if only is None or key in only:
                    tensors[key] = weights.get_tensor(key)
    return tensors


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A handle on one file, that of the safetensors parser or one like it; CheckpointError for whatever it refuses."""
    try:
        found = file.stat()
        # an empty file cannot be mapped, and a pipe or a device would keep the reader waiting: neither is tried
        if special_kind(found.st_mode) or found.st_size == 0:
            raise CheckpointError(diagnose(file))
        handle = TorchFile(file) if is_torch_file(file) else safe_open(file, framework="pt", device="cpu")
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, MemoryError):
        raise CheckpointError(diagnose(file)) from None
    try:
        with handle as weights:
            yield weights
    except (SafetensorError, OSError):
        raise CheckpointError(diagnose(file)) from None
