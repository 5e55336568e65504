"""A weight file or component folder, opened once: what its parts are, and their weights to load from.

A run, the post before it and the lists around it ask for the same header again and again. It is read once for as long
as path, size and time of change stay.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .detect import choose, detect, detect_all
from .dtypes import WORDS
from .errors import CheckpointError, shown
from .files import FileIdentity, Header, file_identity, read_header, weight_files
from .finding import Finding
from .load import assign, open_part
from .part import Kind, PartsOfFamily
from .settings import notes_of

MOST_OPEN = 16
REMEDY = (
    "Queue the prompt again once the file is complete. To put another file in its place, copy it under a temporary "
    "name in the same folder and rename it then."
)


def part_identity(path: str | Path) -> tuple[FileIdentity, ...]:
    """The identities of all that decides what a part is: its weight files, and the config.json beside them."""
    path = Path(path)
    settings = (path if path.is_dir() else path.parent) / "config.json"
    return (*weight_identities(path), file_identity(settings))


def weight_identities(path: str | Path) -> tuple[FileIdentity, ...]:
    """The identities of the files that hold a part's weights."""
    return tuple(map(file_identity, weight_files(Path(path))))


@dataclass(frozen=True)
class Source:
    """A complete part of a checkpoint on disk, with what its weight files were when it was found to be complete."""

    path: Path
    finding: Finding
    files: tuple[FileIdentity, ...]
    mapped: bool = True  # False: tensors are read at once, and the files are not looked at again

    @property
    def notes(self) -> dict[str, Tensor]:
        """What the shapes of the part do not tell, to be saved beside them."""
        part = self.finding.part
        return {} if part is None else notes_of(part.untold(self.finding.config))

    def open(self) -> dict[str, Tensor]:
        """The tensors in our naming. CheckpointError when the files are no longer those that were found."""
        self._check_found()
        tensors = open_part(self.path, self.finding)
        return tensors if self.mapped else {key: tensor.clone() for key, tensor in tensors.items()}

    def fill(self, module: nn.Module, dtype: torch.dtype) -> None:
        """Give a host's meta module the weights; see `assign`."""
        self._check_found()
        assign(module, open_part(self.path, self.finding), dtype, copy=not self.mapped)

    def check(self) -> None:
        """CheckpointError when a file was rewritten or cut while its weights are mapped.

        Whoever goes on would compute with bytes of two files, or end the process at the first page that is gone.
        """
        for file in self.files if self.mapped else ():
            if file.is_rewritten(file_identity(file.path)):
                self._complain(file, "was rewritten while the model was loaded")

    def _check_found(self) -> None:
        for file in self.files:
            # not the inode: some network drives give a file another one every time
            if file_identity(file.path)[1:3] != file[1:3]:
                self._complain(file, "changed while the model was being loaded")

    def _complain(self, file: FileIdentity, fate: str) -> None:
        name = shown(Path(file.path).name)
        whole = "" if name == self.finding.name else f" of {self.finding.name}"
        now = file_identity(file.path).size
        sizes = "it is gone" if now < 0 else f"{file.size} bytes before, {now} now"
        raise CheckpointError(f"{name}{whole} {fate} ({sizes}). {REMEDY}")


class Checkpoint:
    """A weight file or component folder and what its parts are, as it was when it was opened."""

    def __init__(self, path: Path, families: Iterable[PartsOfFamily]):
        self.path, self._families = path, tuple(families)
        # before the header is read: what changes from here on is noticed
        self.files = weight_identities(path)
        self.header = read_header(path)
        self._findings: dict[str, tuple[Finding, ...]] = {}

    def findings(self, family: PartsOfFamily) -> tuple[Finding, ...]:
        """What one family makes of the file, largest part first."""
        if family.id not in self._findings:
            self._findings[family.id] = detect_all(self.header, (family,))
        return self._findings[family.id]

    def find(self, family: PartsOfFamily, kind: Kind) -> Finding:
        """The complete part of `kind` of a family; CheckpointError says what the file is instead, and who takes it."""
        return choose(self.header, self._families, family, kind, self.findings(family))

    def has(self, family: PartsOfFamily, kind: Kind) -> bool:
        """Whether the file is meant to hold a part of this kind."""
        return any(finding.kind == kind for finding in self.findings(family))

    def source(self, family: PartsOfFamily, kind: Kind, mapped: bool = True) -> Source:
        """The part of `kind` of a family to load from; CheckpointError unless it is a complete one."""
        return Source(self.path, self.find(family, kind), self.files, mapped)


class OpenCheckpoints:
    """The checkpoints opened last, by what their files were then."""

    def __init__(self, families: Iterable[PartsOfFamily], most: int = MOST_OPEN):
        self._families, self._most = tuple(families), most
        self._open: OrderedDict[tuple[FileIdentity, ...], Checkpoint] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path) -> Checkpoint:
        """The checkpoint at a path; CheckpointError says why it cannot be read."""
        files = part_identity(path)
        with self._lock:
            if files in self._open:
                self._open.move_to_end(files)
                return self._open[files]
        opened = Checkpoint(path, self._families)
        # a file that was written this moment may still change without a trace
        if all(file.is_settled for file in files):
            with self._lock:
                self._open[files] = opened
                while len(self._open) > self._most:
                    self._open.popitem(last=False)
        return opened


def recognise(tensors: Mapping[str, Tensor], families: Iterable[PartsOfFamily]) -> Finding:
    """What the state dict of a diffusion model that another program loaded is, from its keys and shapes alone.

    `Finding.complete` says whether it can be taken over.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    dtypes = {key: WORDS.get(tensor.dtype, str(tensor.dtype)) for key, tensor in tensors.items()}
    return detect(Header("The connected MODEL", (), shapes, dtypes, {}), families, "diffusion_model")
