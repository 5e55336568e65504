"""Tensors as a torch checkpoint stores them: views of storages, which are members of its zip file."""

from dataclasses import dataclass
from math import prod

import torch

from .dtypes import DTYPES
from .errors import AGAIN, CheckpointError

MAX_COUNT = 2**62  # that torch can multiply by a dtype's bytes or add up
MAX_REPEATED = 2**20  # numbers of a tensor that is stored as fewer


@dataclass(frozen=True)
class Storage:
    """Numbers of one dtype in one member of the file."""

    key: str
    word: str
    length: int

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.word]

    @property
    def nbytes(self) -> int:
        return self.length * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage, which it does not leave."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def is_inside(self) -> bool:
        """Whether all of its numbers are in the storage. A repeated one, which torch can store, stays small."""
        if not self.numel:
            return prod(size or 1 for size in self.shape) < MAX_COUNT
        last = self.offset + sum(
            (size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)
        )
        return last < self.storage.length and self.numel <= max(self.storage.length, MAX_REPEATED)

    def get_shape(self) -> tuple[int, ...]:
        """As the handle of the safetensors parser says it."""
        return self.shape

    def get_dtype(self) -> str:
        return self.storage.word


class DamagedError(ValueError):
    """The list of tensors contradicts itself; the message is the end of a sentence about the file."""


def damaged(name: str, problem: str) -> CheckpointError:
    """The error for a torch checkpoint that cannot be what torch.save wrote."""
    return CheckpointError(
        f"{name} is a damaged torch checkpoint (a pickle file in a zip file): {problem}. {AGAIN}"
    )
