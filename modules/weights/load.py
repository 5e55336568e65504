"""Weights into a module that was built on the meta device: strictly, and without a second copy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .detect import Finding, HasParts, choose, detect
from .errors import CheckpointError, shown
from .files import FileIdentity, file_identity, open_weights, read_header, weight_files
from .part import Kind
from .settings import notes_of

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


def find_source(
    path: Path, families: Iterable[HasParts], family: HasParts, kind: Kind, mapped: bool = True
) -> Source:
    """The part of `kind` of a family at `path`; CheckpointError unless it is a complete one."""
    files = weight_identities(path)  # first: what changes from here on is noticed
    return Source(path, choose(read_header(path), families, family, kind), files, mapped)


def read_part(
    path: str | Path, families: Iterable[HasParts], kind: Kind | None = None
) -> tuple[Finding, dict[str, Tensor]]:
    """(what the file is, its memory-mapped tensors in our naming); CheckpointError unless every key fits."""
    finding = detect(read_header(path), families, kind).check()
    return finding, open_part(path, finding)


def open_part(path: str | Path, finding: Finding) -> dict[str, Tensor]:
    """The memory-mapped tensors of a part that `detect` found complete, in our naming."""
    tensors = rename(open_weights(path), finding.renames)
    return tensors | {key: tensors[key].reshape(shape) for key, shape in finding.reshaped.items()}


def rename(tensors: Mapping[str, Tensor], renames: Mapping[str, str | None]) -> dict[str, Tensor]:
    """The tensors that `renames` names, under our keys."""
    return {ours: tensors[key] for key, ours in renames.items() if ours is not None}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], name: str = "The checkpoint") -> nn.Module:
    """Give a module on the meta device its weights; the tensors become the parameters as they are.

    CheckpointError when a key is missing, unexpected or misshapen, before anything is assigned.
    ValueError when something of the module stays without data: it has a tensor no checkpoint holds.
    """
    check_against(module, tensors, name)
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    everything = (*module.named_parameters(), *module.named_buffers())
    if empty := [key for key, tensor in everything if tensor.is_meta]:
        raise ValueError(
            f"{type(module).__name__} keeps tensors that no checkpoint holds: {', '.join(empty[:5])}"
        )
    return module


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype, copy: bool = False
) -> nn.Module:
    """Give a host's meta module the weights of a complete part; those of another dtype are cast.

    Tensors already in `dtype` stay as they are, mapped from disk, unless `copy`. A host may hold its layers' weights back until this
    call, so shapes are not asked of the module: `Finding.check` has compared them. CheckpointError when the
    module did not take every tensor.
    """
    cast = {key: tensor.to(storage_dtype(key, tensor, dtype), copy=copy) for key, tensor in tensors.items()}
    missing, unexpected = module.load_state_dict(cast, strict=False, assign=True)
    if missing or unexpected:
        raise CheckpointError(
            f"{type(module).__name__} did not take the checkpoint: {len(missing)} weights missing "
            f"({', '.join(missing[:5])}), {len(unexpected)} unexpected ({', '.join(unexpected[:5])})."
        )
    return module.requires_grad_(False)


def storage_dtype(key: str, tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What a tensor is kept in when the model is kept in `dtype`.

    8-bit floats hold only the matrices inside the blocks: embeddings, norms and biases keep their own dtype, as in
    the published fp8 files of kijai's repositories.
    """
    if dtype.itemsize > 1:
        return dtype
    return dtype if tensor.ndim == 2 and "blocks." in key else tensor.dtype


def check_against(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """CheckpointError unless keys and shapes are exactly those of the module's state dict."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    faults = {
        "missing": [key for key in wanted if key not in tensors],
        "unexpected": [key for key in tensors if key not in wanted],
        "misshapen": [
            f"{key}: {tuple(tensors[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    words = [
        f"{len(keys)} {fault} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    if words:
        raise CheckpointError(
            f"{name} does not fit {type(module).__name__}: {'; '.join(words)}. Use the file as it was published."
        )
