"""Widgets that hang on a choice, such as the options of a format: filled in as the page does when one is chosen."""

from collections.abc import Sequence
from typing import Any

from .commands import Trouble
from .prompts import Prompt
from .settings import Setting, value_of

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
KINDS = {"INT": int, "FLOAT": float, "BOOLEAN": bool, "STRING": str, "COMBO": str}

Json = Any
Inputs = dict[str, Any]


def settle(graph: Prompt, settings: Sequence[Setting], schemas: Json) -> None:
    """Make what hangs on the choices that were set fit them; `schemas` is the server's /object_info.

    An option of another choice goes, one that was not set gets its default. Raises `Trouble` for one that was
    set and does not belong to the choice.
    """
    for node, root in sorted({(one.node, one.widget.partition(".")[0]) for one in settings}):
        schema = _inputs_of(schemas.get(graph[node]["class_type"], {}).get("input", {})).get(root)
        own = {one.widget: one for one in settings if one.node == node}
        if schema and schema[0] == DYNAMIC:
            _settle_choice(graph[node]["inputs"], root, schema, own)
            continue
        unknown = [name for name, one in own.items() if one.stood is None and name.startswith(f"{root}.")]
        if unknown:
            raise Trouble(f"{root} of node {node} is no choice on which {unknown[0]} could hang.")


def _settle_choice(inputs: Inputs, root: str, schema: Json, settings: dict[str, Setting]) -> None:
    chosen = {option["key"]: option for option in schema[1]["options"]}.get(inputs[root])
    if chosen is None:
        return  # the server says what it takes
    children = {f"{root}.{name}": spec for name, spec in _inputs_of(chosen["inputs"]).items()}
    for name in [name for name in inputs if name.startswith(f"{root}.")]:
        if not any(f"{name}.".startswith(f"{child}.") for child in children):
            if name in settings:
                there = ", ".join(children) or "none"
                raise Trouble(f"{name} does not belong to {root}={inputs[root]}. What does: {there}.")
            del inputs[name]
    is_new = root in settings and settings[root].stood != inputs[root]
    for name, spec in children.items():
        if name in settings and settings[name].stood is None:
            inputs[name] = value_of(settings[name].text, KINDS.get(_kind(spec), str), name)
        elif name not in settings and (is_new or name not in inputs):
            default = _default(spec)
            inputs |= {} if default is None else {name: default}
        if spec[0] == DYNAMIC and name in inputs:
            _settle_choice(inputs, name, spec, settings)


def _inputs_of(sections: Json) -> dict[str, Json]:
    return {**sections.get("required", {}), **sections.get("optional", {})}


def _kind(spec: Json) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _default(spec: Json) -> Any:
    """A widget's value before anybody touched it; None for a socket."""
    options = spec[1] if len(spec) > 1 else {}
    if "default" in options:
        return options["default"]
    names = spec[0] if isinstance(spec[0], list) else options.get("options")
    if names:
        return names[0]["key"] if spec[0] == DYNAMIC else names[0]
    return {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False, "STRING": ""}.get(spec[0])
