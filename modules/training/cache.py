"""Encoded clips on disk, so that the encoders have left memory before a network is trained: one safetensors file each.

A file is named by what it was made of: a clip that is there is not encoded again, and what changed has another name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .state import place
from .subject import Example

TENSORS = ("mean", "log_variance", "context", "image", "mask", "control", "pooled")
NUMBERS = "numbers"
# bytes of a video whose digest tells it from others: its ends and its middle
PIECE = 2**20


def key_of(*parts: Any) -> str:
    """A name for what is made of these: plain values, digests of files, versions."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_of(path: Path) -> str:
    """What a file holds, told by its size, its ends and its middle: whole videos are not read for it."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for start in sorted({0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)}):
            file.seek(start)
            digest.update(file.read(PIECE))
    return digest.hexdigest()


class Cache:
    """A folder of encoded clips."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def holds(self, key: str) -> bool:
        """Whether a clip is there and whole."""
        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                return "mean" in file.keys() or "context" in file.keys()  # noqa: SIM118
        except (OSError, SafetensorError):
            return False

    def keep(self, key: str, tensors: Mapping[str, Tensor | None], numbers: Mapping[str, float]) -> None:
        """Write a clip. OSError where there is no room: nothing half-written stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        metadata = {NUMBERS: json.dumps(dict(numbers))}
        place(self.path(key), lambda path: save_file(kept, path, metadata=metadata), lasting=False)

    def tensors(self, key: str) -> dict[str, Tensor]:
        """What was kept."""
        with safe_open(self.path(key), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def numbers(self, key: str) -> dict[str, float]:
        """Its numbers."""
        with safe_open(self.path(key), framework="pt") as file:
            return json.loads(file.metadata()[NUMBERS])


@dataclass(frozen=True)
class Place:
    """Where the parts of one example lie: its clip, and its caption's features, which others share."""

    clip: str
    text: str | None
    numbers: Mapping[str, float]


class CachedExamples:
    """The examples of a training, read from disk when they are asked for."""

    def __init__(
        self,
        cache: Cache,
        places: Sequence[Place],
        empty: str | None,
        facts: Mapping[str, Any] | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        self._cache, self._places = cache, tuple(places)
        # features of prompts to sample with, in their order
        self.prompts = tuple(cache.tensors(key)["context"] for key in prompts)
        # of the data set, for whoever opens what was trained on it
        self.facts = dict(facts or {})
        self.empty: Tensor | None = None if empty is None else cache.tensors(empty)["context"]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Example:
        where = self._places[number]
        tensors = self._cache.tensors(where.clip)
        if where.text is not None:
            tensors |= self._cache.tensors(where.text)
        example = Example(number, **{name: tensors[name] for name in TENSORS if name in tensors})  # type: ignore[arg-type]
        return replace(example, numbers={**self._cache.numbers(where.clip), **where.numbers})
