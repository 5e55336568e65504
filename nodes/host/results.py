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


def is_taken(slot: int) -> bool:
    """Whether a node of the running prompt takes this output of the running node; True where nobody can tell.

    A node that leaves out what nobody takes must have this in its `fingerprint_inputs`, too: else the host would
    hand what was left out to whoever takes it later.
    """
    running, prompt = _running_prompt()
    if running not in prompt:
        return True
    return any([running, slot] == value for node in prompt.values() for value in node["inputs"].values())


def _running_key() -> str | None:
    """A name for all that decides what the running node makes; None outside the queue."""
    running, prompt = _running_prompt()
    return _digest(running, prompt, {}) if running in prompt else None


def _running_prompt() -> tuple[str, dict[str, Any]]:
    """(id of the running node, the prompt); an empty prompt outside the queue."""
    running = get_executing_context()
    if running is None:
        return "", {}
    from server import PromptServer  # there where a queue runs

    prompts, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    return running.node_id, next(
        (prompt for _, number, prompt, *_ in prompts if number == running.prompt_id), {}
    )


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
