"""Finished segments of a long video, kept beside it: latents with a note each, whole or not there at all."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import VideoError
from .room import amount, free_bytes

SAMPLES = "samples"
SEGMENT = re.compile(r"\d{4,}_[0-9a-f]{16}\.(safetensors|json)")
NOTE_BYTES = 4096


@dataclass(frozen=True)
class SegmentStore:
    """The folder of a video's segments. A segment is found by its key, which stands for all that made it."""

    folder: Path

    def check_room(self, count: int, segment_bytes: int) -> str:
        """What so many segments will take, for people; VideoError where the disk has less."""
        needed = count * (segment_bytes + NOTE_BYTES)
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if needed > (free := free_bytes(place)) > 0:
            raise VideoError(
                f"{count} segments take {amount(needed)} while the video is made, and {amount(free)} are free: free "
                "some space, or make fewer or smaller segments."
            )
        return f"{count} segments take {amount(needed)} in {self.folder.name}."

    def load(self, number: int, key: str) -> Tensor | None:
        """The latents of a finished segment; None where there are none, or the file is not what was written."""
        file, note = self._paths(number, key)
        try:
            told, data = json.loads(note.read_text(encoding="utf-8")), file.read_bytes()
            if told["key"] != key or told["sha256"] != hashlib.sha256(data).hexdigest():
                return None
            return load(data)[SAMPLES]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def keep(self, number: int, key: str, latents: Tensor, facts: Mapping[str, Any]) -> None:
        """Write a finished segment; its note comes last, so that no half of one counts."""
        file, note = self._paths(number, key)
        data = save({SAMPLES: latents.detach().cpu().contiguous()})
        told = {"segment": number, "key": key, "sha256": hashlib.sha256(data).hexdigest(), **facts}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(file, data)
            _write(note, (json.dumps(told, indent=2) + "\n").encode("utf-8"))
        except OSError as error:
            raise VideoError(
                f"Segment {number} could not be kept in {self.folder.name}: {error.strerror or 'the disk fails'}. The "
                "segments before it are there, and the same prompt goes on from them."
            ) from error

    def remove(self, keys: Mapping[int, str]) -> None:
        """Remove the segments of these keys, and the folder where nothing else is in it."""
        for number, key in keys.items():
            for path in self._paths(number, key):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def remove_others(self, keys: Mapping[int, str]) -> None:
        """Remove the segments of all keys but these."""
        kept = {path for number, key in keys.items() for path in self._paths(number, key)}
        for path in self.folder.iterdir():
            if SEGMENT.fullmatch(path.name) and path not in kept:
                path.unlink(missing_ok=True)

    def _paths(self, number: int, key: str) -> tuple[Path, Path]:
        stem = f"{number:04d}_{key[:16]}"
        return self.folder / f"{stem}.safetensors", self.folder / f"{stem}.json"


def _write(path: Path, data: bytes) -> None:
    """The file under its name once all of it is on the disk."""
    half = path.with_name(f".{path.name}.half")
    try:
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
