"""What a node checks of its inputs: at the post through its schema, and once more when it runs.

The host compares typed values with the bounds and lists of the schema, but not those of inputs that `validate_inputs`
names, and it repeats what `validate_inputs` says at every input named there. So little is named: bounds and sockets
say themselves what they refuse, and the parts of a DynamicCombo come by keyword, where the host does not see them.
Values that arrive over a link are known only when the node runs: `checked` looks at all of them then.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from inspect import signature
from typing import Any

import torch

from .host.api import Input, io

# An optional DynamicCombo that is not in the prompt; None is one that is linked.
ABSENT = object()


class Bound(float):
    """A bound that NaN does not pass: the host asks `value < low` and `value > high`, which NaN answers with no."""

    def __gt__(self, value: float) -> bool:
        return not self <= value

    def __lt__(self, value: float) -> bool:
        return not self >= value


class FileNames(list[str]):
    """A list of files inside a DynamicCombo. It was read when ComfyUI started: the node itself looks whether a file is
    there."""


class Linked(str):
    """The lower bound of a socket: whatever was typed there in place of a link is below it."""

    def __new__(cls, may_be_none: bool) -> "Linked":
        self = super().__new__(cls, "a link to an output of another node")
        self.may_be_none = may_be_none
        return self

    def __gt__(self, value: Any) -> bool:
        return not (self.may_be_none and value is None)


def guarded(define_schema: Callable[[Any], io.Schema]) -> Callable[[Any], io.Schema]:
    """`define_schema` of a node, its numbers with bounds that NaN does not pass, its sockets with one for links alone."""

    @wraps(define_schema)
    def define(cls: Any) -> io.Schema:
        schema = define_schema(cls)
        for wish in _all_inputs(schema.inputs):
            if isinstance(wish, io.Float.Input):
                wish.min, wish.max = Bound(wish.min), Bound(wish.max)
            elif wish.get_io_type() in SOCKETS:
                wish.extra_dict = {**wish.extra_dict, "min": Linked(bool(wish.optional))}
        return schema

    return define


def _all_inputs(wishes: Iterable[Any]) -> Iterator[Any]:
    for wish in wishes:
        yield wish
        for option in getattr(wish, "options", None) or ():
            yield from _all_inputs(getattr(option, "inputs", ()))


def check_number(name: str, value: float | None, low: float, high: float) -> None:
    """ValueError unless low <= value <= high; NaN is outside every bound. None, a link at the post, passes."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}: got {shown(value)}.")
    if not low <= value <= high:
        got = "NaN" if value != value else value
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}: got {got}.")


def check_choice(name: str, chosen: Any, choices: Iterable[str]) -> None:
    """ValueError unless a word is one of `choices`. None, a link at the post, passes."""
    choices = tuple(choices)
    if chosen is not None and not (isinstance(chosen, str) and chosen in choices):
        raise ValueError(f"{name} must be one of {', '.join(choices)}: got {shown(chosen)}.")


def check_known(name: str, chosen: Any, choices: Iterable[str]) -> None:
    """ValueError unless the choice of a DynamicCombo is one of its list, for which the host does not look.

    By keyword it comes without its value, and only where it is known; named in front it comes as it was typed, or as
    None for a link.
    """
    choices = tuple(choices)
    if isinstance(chosen, Mapping) and (chosen.get(name) is None or chosen[name] in choices):
        return
    got = "another value, a link or nothing" if chosen is None else shown(chosen)
    raise ValueError(f"{name} must be one of {', '.join(choices)}: got {got}.")


def shown(value: Any) -> str:
    """A value in an error text: short, and on one line."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def shown_type(value: Any) -> str:
    """A value that was typed, or what kind of thing came over a link."""
    return shown(value) if isinstance(value, str | int | float | dict | None) else type(value).__name__


def _is_clip(value: Any) -> bool:
    return isinstance(value, Mapping) and hasattr(value.get("samples"), "shape")


def _is_sound(value: Any) -> bool:
    waveform = value.get("waveform") if isinstance(value, Mapping) else None
    return isinstance(waveform, torch.Tensor) and waveform.ndim == 3 and len(waveform) > 0


def _is_picture(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 4


def _is_video(value: Any) -> bool:
    return isinstance(value, Input.Video)


def _is_conditioning(value: Any) -> bool:
    entries = value if isinstance(value, list | tuple) else [None]
    return all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries)


# What must be true of a value in a socket, and how to call it.
SOCKETS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "MODEL": (lambda value: hasattr(value, "model_options"), "a MODEL"),
    "CLIP": (lambda value: hasattr(value, "tokenize"), "a CLIP"),
    "VAE": (lambda value: hasattr(value, "first_stage_model"), "a VAE"),
    "CLIP_VISION": (lambda value: not isinstance(value, str | int | float | dict | list), "a CLIP_VISION"),
    "CONDITIONING": (_is_conditioning, "a CONDITIONING"),
    "LATENT": (_is_clip, "a LATENT with samples"),
    "IMAGE": (_is_picture, "an IMAGE (frames, h, w, channels)"),
    "VIDEO": (_is_video, "a VIDEO"),
    "IMAGE,VIDEO": (
        lambda value: _is_picture(value) or _is_video(value),
        "an IMAGE (frames, h, w, channels) or a VIDEO",
    ),
    "MASK": (lambda value: isinstance(value, torch.Tensor) and value.ndim in (2, 3), "a MASK (frames, h, w)"),
    "AUDIO": (_is_sound, "AUDIO with a waveform (batch, channels, samples)"),
}


def check_socket(name: str, kind: str, value: Any) -> None:
    """ValueError unless a value is what a socket of this kind carries."""
    fits, wanted = SOCKETS[kind]
    if not fits(value):
        raise ValueError(f"{name} must be {wanted}, over a link: got {shown_type(value)}.")


def checked(execute: Callable[..., Any]) -> Callable[..., Any]:
    """`execute` of a node, once all its inputs are what its schema and its `validate_inputs` allow.

    ValueError begins with the input that is at fault. Inputs that the node does not have, which the host leaves out
    when they are typed, are left out when they are linked, too.
    """
    names = [name for name in signature(execute).parameters if name != "cls"]

    @wraps(execute)
    def run(cls: Any, *values: Any, **inputs: Any) -> Any:
        given = dict(zip(names, values, strict=False)) | inputs
        known = {name: value for name, value in given.items() if name in names}
        check_inputs(cls, known)
        return execute(cls, **known)

    return run


def check_inputs(node: Any, inputs: Mapping[str, Any]) -> None:
    """ValueError at the first input of a node that its schema or its `validate_inputs` refuses.

    Lists of inputs that `validate_inputs` names are its own matter. Inputs that are not there are not asked about.
    """
    named = signature(node.validate_inputs).parameters
    wishes = {wish.id: wish for wish in (node.SCHEMA or node.GET_SCHEMA()).inputs}
    given = {name: value for name, value in inputs.items() if value is not None or not wishes[name].optional}
    for name, value in given.items():
        if not (name in named and isinstance(wishes[name], io.Combo.Input)):
            _check_value(name, wishes[name], value)
    given = {name: value for name, value in given.items() if name in named}
    if given and (said := node.validate_inputs(**given)) is not True:
        raise ValueError(said)


def still_to_come(node: Any, inputs: Mapping[str, Any], late: Iterable[str]) -> list[str]:
    """For `check_lazy_status`: the `late` inputs that are not there yet, once all others passed the node's checks.

    So what is wrong with a name or a number over a link is told before anything is computed for the late ones.
    """
    check_inputs(node, {name: _without_paths(value) for name, value in inputs.items() if name not in late})
    return [name for name in late if inputs.get(name) is None]


def _without_paths(value: Any) -> Any:
    """A DynamicCombo's dictionary without the (value, path) pairs that the host makes of its entries here."""
    if not isinstance(value, dict) or not all(isinstance(entry, tuple) for entry in value.values()):
        return value
    return {name: entry[0] for name, entry in value.items()}


def _check_value(name: str, wish: Any, value: Any) -> None:
    kind = wish.get_io_type()
    if isinstance(wish, io.DynamicCombo.Input):
        _check_option(name, wish, value)
    elif isinstance(wish, io.Int.Input | io.Float.Input):
        _check_type(name, value, int if isinstance(wish, io.Int.Input) else int | float, "a number")
        check_number(name, value, wish.min, wish.max)
    elif isinstance(wish, io.Combo.Input) and not isinstance(wish.options, FileNames):
        check_choice(name, value if value is not None else "", wish.options)
    elif isinstance(wish, io.Boolean.Input):
        _check_type(name, value, bool, "true or false")
    elif isinstance(wish, io.String.Input):
        _check_type(name, value, str, "a text")
    elif isinstance(wish, io.Autogrow.Input):
        for key, entry in (value or {}).items():
            check_socket(f"{name}.{key}", wish.template.input.get_io_type(), entry)
    elif kind in SOCKETS:
        check_socket(name, kind, value)


def _check_type(name: str, value: Any, kind: Any, wanted: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {wanted}: got {shown(value)}.")


def _check_option(name: str, wish: Any, value: Any) -> None:
    options = {option.key: option.inputs for option in wish.options}
    key = value.get(wish.id) if isinstance(value, Mapping) else value
    check_choice(name, key if key is not None else "", options)
    for part in options[key]:
        if part.id in value:
            _check_value(f"{name}.{part.id}", part, value[part.id])
