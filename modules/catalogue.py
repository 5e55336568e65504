"""What the files in the model folders hold, as far as their headers were read: nobody waits for the others.

A list of models is asked for while a page loads, and there may be hundreds of files on a slow drive. So a file
that was not read yet is answered with "not known", and a thread reads it for the next time. It ends when there
is nothing left to read.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from .families import FAMILIES
from .lora_origin import family_of
from .weights.detect import sure_parts
from .weights.errors import CheckpointError
from .weights.files import FileIdentity, file_identity, read_header
from .weights.lora_names import is_lora
from .weights.part import Kind, PartsOfFamily
from .weights.shards import weights_in

MAX_FILES = 20_000  # that are remembered

Files = tuple[FileIdentity, ...]
LORA: Literal["lora"] = "lora"
# (family, kind) of the parts in a file, or of the network that a LoRA file changes; empty: not surely known
Held = frozenset[tuple[str, Kind | Literal["lora"]]]


class Catalogue:
    """Remembers the kinds of parts of every file or component folder, by what its files were when they were read."""

    def __init__(self, families: Iterable[PartsOfFamily]) -> None:
        self._families = tuple(families)
        self._known: OrderedDict[Files, Held] = OrderedDict()
        self._waiting: dict[Files, Path] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def is_others(self, path: Path, family: str, kind: Kind | Literal["lora"]) -> bool:
        """Whether a file or component folder surely holds parts of other kinds alone. Reads nothing."""
        held = self._find(path)
        return bool(held) and (family, kind) not in held

    def is_no_lora(self, path: Path) -> bool:
        """Whether a file surely holds parts of a checkpoint and no LoRA. Reads nothing."""
        held = self._find(path)
        return bool(held) and all(kind != LORA for _, kind in held)

    def wait(self, seconds: float) -> None:
        """Until everything asked for so far is read."""
        reader = self._reader
        if reader is not None:
            reader.join(seconds)

    def _find(self, path: Path) -> Held:
        files = _identities(path)
        with self._lock:
            if files not in self._known:
                self._waiting[files] = path
                self._start()
            return self._known.get(files, frozenset())

    def _start(self) -> None:
        if self._reader is None or not self._reader.is_alive():
            self._reader = threading.Thread(target=self._read_all, name="kinetograph-headers", daemon=True)
            self._reader.start()

    def _read_all(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._reader = None
                    return
                files, path = next(iter(self._waiting.items()))
            held = self._read(path)
            with self._lock:
                del self._waiting[files]
                # a file that was written this moment may still change without a trace: it is read again
                if all(file.is_settled for file in files):
                    self._known[files] = held
                while len(self._known) > MAX_FILES:
                    self._known.popitem(last=False)

    def _read(self, path: Path) -> Held:
        try:
            shapes = read_header(path).shapes
            if is_lora(shapes):
                return frozenset({(family_of(shapes), LORA)})
            return frozenset(sure_parts(shapes, self._families))
        except (CheckpointError, OSError, MemoryError):
            return frozenset()  # what is wrong with it is said to whoever chooses it


def _identities(path: Path) -> Files:
    """What a file is, or what the weight files of a component folder are."""
    try:
        inside = weights_in(path) if os.path.isdir(path) else []
    except CheckpointError:
        inside = []
    return tuple(map(file_identity, (path, *inside)))


CATALOGUE = Catalogue(FAMILIES)
