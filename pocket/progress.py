"""A run's memory: a log of averages, and state to go on from after a stop."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch


class RunLog:
    """Averages over `every` steps, one JSON line each."""

    def __init__(self, path: Path, every: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.every = path, every
        self.rows: list[dict[str, float]] = []
        self.since = time.time()

    def add(self, step: int, **values: float) -> None:
        self.rows.append(values)
        if step % self.every:
            return
        mean = {k: round(sum(r[k] for r in self.rows) / len(self.rows), 6) for k in values}
        seconds = (time.time() - self.since) / len(self.rows)
        self.write(step=step, **mean, seconds_per_step=round(seconds, 3))
        self.rows, self.since = [], time.time()

    def write(self, **row: float) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows by step; where a run was resumed from an earlier step, the later row counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if row.get("step")]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def save_run(out: Path, step: int, model: torch.nn.Module, optimizer: Any) -> None:
    """Write the state beside the last one, then replace it: a stop in between loses nothing."""
    out.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, out / "state.tmp")
    os.replace(out / "state.tmp", out / "state.pt")


def load_run(out: Path, model: torch.nn.Module, optimizer: Any) -> int:
    """Steps already done; 0 for a fresh run."""
    if not (out / "state.pt").exists():
        return 0
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
