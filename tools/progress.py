"""Draws in a terminal what a ComfyUI server tells while it works."""

import sys
import time
from typing import Any

from .prompts import Prompt, title_of

BAR_WIDTH = 30


class Progress:
    """Draws what the event stream tells: the node at work, and a bar where it counts."""

    def __init__(self, graph: Prompt):
        self._graph = graph
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._last = ""

    def __call__(self, kind: str, data: Any) -> None:
        if kind == "executing" and data["node"] is not None:
            self._say(self._title(data["node"]), end="\n")
        elif kind == "progress" and (self._live or data["value"] == data["max"]):
            done = BAR_WIDTH * data["value"] // max(1, data["max"])
            bar = "#" * done + "." * (BAR_WIDTH - done)
            self._say(f"  [{bar}] {data['value']}/{data['max']}", "\r" if self._live else "\n")

    def _title(self, node: str) -> str:
        return title_of(self._graph[node]) if node in self._graph else node

    def _say(self, words: str, end: str) -> None:
        if self._last == "\r" and end == "\n":
            print()
        print(f"{time.monotonic() - self._started:6.1f} s  {words}", end=end, flush=True)
        self._last = end
