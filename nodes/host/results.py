"""Files that nodes reported: a result whose file is gone must not be answered from the host's cache.

The host asks `fingerprint_inputs` before anything runs and shows it no linked input. What a node will write is
told by the prompt that is running: the node's own inputs and those of all nodes before it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context


@dataclass
class Reported:
    """What a node wrote last for one set of inputs, and how often that was found to be gone."""

    files: dict[Path, tuple[int, int]] = field(default_factory=dict)  # size and time of change
    times_gone: int = 0


_reported: dict[str, Reported] = {}


def remember(path: Path) -> None:
    """Note the file that the running node reports. A list of inputs makes a file for each."""
    if (key := _running_key()) is None:
        return
    kept = _reported.setdefault(key, Reported())
    if not get_executing_context().list_index:
        kept.files.clear()
    kept.files[path] = _state(path)


def times_gone() -> int:
    """How often the files of the running node were found gone, or to be others: a new number makes the host run it."""
    kept = _reported.get(_running_key() or "")
    if kept is None:
        return 0
    if any(_state(path) != state for path, state in kept.files.items()):
        kept.files.clear()
        kept.times_gone += 1
    return kept.times_gone


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; (-1, -1) without one."""
    try:
        seen = path.stat()
    except OSError:
        return -1, -1
    return seen.st_size, seen.st_mtime_ns


def _running_key() -> str | None:
    """A name for all that decides what the running node makes; None outside the queue."""
    running = get_executing_context()
    if running is None:
        return None
    from server import PromptServer  # there where a queue runs

    prompts, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    prompt = next((prompt for _, number, prompt, *_ in prompts if number == running.prompt_id), {})
    return _digest(running.node_id, prompt, {}) if running.node_id in prompt else None


def _digest(node_id: str, prompt: dict[str, Any], known: dict[str, str]) -> str:
    """A node's class and inputs, with those of the nodes that it is linked to in place of the links."""
    if node_id not in known:
        node = prompt[node_id]
        inputs = {
            name: [_digest(value[0], prompt, known), value[1]] if is_link(value) else value
            for name, value in node["inputs"].items()
        }
        text = json.dumps([node["class_type"], inputs], sort_keys=True, default=repr)
        known[node_id] = hashlib.sha256(text.encode()).hexdigest()
    return known[node_id]
