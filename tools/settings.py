"""`--set Node.widget=value`: which widget of a prompt is meant, and the value in that widget's kind."""

import math
from dataclasses import dataclass
from typing import Any

from .commands import Trouble
from .prompts import Prompt, title_of

PREFIX = "Kinetograph"
Value = bool | int | float | str
YES, NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Setting:
    """A widget of a node, and the text to set. `stood` is the value there before, None where none was."""

    node: str
    widget: str
    stood: Value | None
    text: str


def read(graph: Prompt, wish: str) -> Setting:
    """What a wish means in this prompt. Raises `Trouble` that lists what there is, when it means nothing."""
    place, equals, text = wish.partition("=")
    if not equals or "." not in place:
        raise Trouble(f'--set wants Node.widget=value, such as "Prompt.text=a red circle", and got {wish!r}.')
    node, widget = _place(graph, place)
    inputs = graph[node]["inputs"]
    if widget not in inputs:
        _check_is_child(graph, node, widget)
        return Setting(node, widget, None, text)
    value = inputs[widget]
    if not isinstance(value, Value):
        source = f": it comes from {_named(graph, value[0])}" if isinstance(value, list) and value else ""
        raise Trouble(f"{widget} of {_named(graph, node)} is no value that --set could change{source}.")
    return Setting(node, widget, value, text)


def apply(graph: Prompt, setting: Setting) -> None:
    """Write the value into the prompt, or raise `Trouble` where it is not of the widget's kind."""
    where = f"{setting.widget} of {_named(graph, setting.node)}"
    kind = str if setting.stood is None else type(setting.stood)
    graph[setting.node]["inputs"][setting.widget] = value_of(setting.text, kind, where)


def value_of(text: str, kind: type, where: str) -> Value:
    """A text as a value of a kind. Raises `Trouble` that names the place, `where`."""
    try:
        if kind is bool:
            return {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}[text.strip().lower()]
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise Trouble(f"{where} is {wanted}: got {text!r}.") from None


def _place(graph: Prompt, place: str) -> tuple[str, str]:
    """(id of the node, widget). Both may hold dots: the shortest name that a node has is the node's."""
    dots = [i for i, letter in enumerate(place) if letter == "."]
    for name, widget in ((place[:i], place[i + 1 :]) for i in dots):
        nodes = [node for node in graph if name.casefold() in _names(graph, node)]
        if len(nodes) > 1:
            several = ", ".join(_named(graph, node) for node in nodes)
            raise Trouble(f"Several nodes are called {name!r}: {several}. Say which one by its number.")
        if nodes:
            return nodes[0], widget
    there = "".join(f"\n  {_named(graph, node)}" for node in graph)
    raise Trouble(f"No node is called {place[: dots[0]]!r}. There are, by number, title and class:{there}")


def _names(graph: Prompt, node: str) -> set[str]:
    kind = graph[node]["class_type"]
    return {name.casefold() for name in (node, title_of(graph[node]), kind, kind.removeprefix(PREFIX))}


def _named(graph: Prompt, node: str) -> str:
    entry = graph.get(node)
    return f"{node} ({title_of(entry)}, {entry['class_type']})" if entry else node


def _check_is_child(graph: Prompt, node: str, widget: str) -> None:
    """Pass what may hang on a choice that stands in the prompt: only the server knows what does."""
    inputs: dict[str, Any] = graph[node]["inputs"]
    root, dot, _ = widget.partition(".")
    if dot and isinstance(inputs.get(root), str):
        return
    there = ", ".join(name for name, value in inputs.items() if not isinstance(value, list)) or "none"
    raise Trouble(f"{_named(graph, node)} has no widget {widget!r} in this prompt. There are: {there}.")
