"""Where a step writes what it found, and how steps take turns on the card."""

import fcntl
import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS, LOCK = "rows.jsonl", "card.lock"


@dataclass(frozen=True)
class Report:
    """The rows of one step. Nothing here imports torch: the host must see the environment first."""

    folder: Path
    step: str
    tiny: bool = False  # a rehearsal: small models, on a CPU where there is no card

    def add(self, name: str, **figures: Any) -> None:
        """Write one row, whole and at once."""
        line = json.dumps({"step": self.step, "name": name, "at": round(time.time()), **figures})
        with (self.folder / ROWS).open("a") as file:
            file.write(line + "\n")
        print(f"{time.strftime('%X')} {line[:400]}", flush=True)

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """A failure becomes a row; what comes after still runs."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-6:]
            where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
            text = f"{type(error).__name__}: {error}"
            self.add(name, failed=text[:1500], where=where, after=round(time.monotonic() - start, 1))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The card to itself: for times and peaks."""
        with _locked(self.folder, fcntl.LOCK_EX):
            yield

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Work on the card that is not timed; nobody takes times meanwhile."""
        with _locked(self.folder, fcntl.LOCK_SH):
            yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, kind)
        yield


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows so far."""
    file = folder / ROWS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
