"""Prompts as the server takes them: the shipped ones by their names, any other by its file, and their nodes."""

import json
from pathlib import Path
from typing import Any

from .commands import ROOT, Trouble

TEMPLATES = ROOT / "workflows" / "api"

Prompt = dict[str, Any]


def read(template: str) -> Prompt:
    """A shipped template, or the file of a prompt. Raises `Trouble` when there is none, or it is no prompt."""
    shipped = {path.stem: path for path in TEMPLATES.glob("*.json")}
    path = shipped.get(template, Path(template))
    if not path.is_file():
        names = ", ".join(sorted(shipped))
        raise Trouble(f"There is no template and no file called {template!r}. Templates are: {names}.")
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Trouble(f"{path} is no JSON file: {error}.") from error
    if not is_prompt(graph):
        raise Trouble(
            f"{path} holds no prompt for the server. A workflow of the page becomes one in ComfyUI: "
            "open it there and take Export (API) from the menu."
        )
    return graph


def is_prompt(graph: Any) -> bool:
    """Whether it is {id: node}, each with its class and its inputs."""
    return isinstance(graph, dict) and all(
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
        for node in graph.values()
    )


def title_of(node: Any) -> str:
    """What stands on a node in the page, its class where it has no title."""
    return node.get("_meta", {}).get("title") or node["class_type"]


def nodes_of(graph: Prompt, kind: str) -> list[Any]:
    return [node for node in graph.values() if node["class_type"] == kind]


def only_node(graph: Prompt, kind: str) -> Any:
    found = nodes_of(graph, kind)
    if len(found) != 1:
        raise ValueError(f"The workflow holds {len(found)} nodes of the kind {kind}, one was expected.")
    return found[0]


def prompt_node(graph: Prompt) -> Any:
    """The text node titled "Prompt"."""
    titled = [node for node in nodes_of(graph, "CLIPTextEncode") if title_of(node) == "Prompt"]
    if len(titled) != 1:
        raise ValueError(f'The workflow holds {len(titled)} text nodes titled "Prompt", one was expected.')
    return titled[0]
