"""Optimizers by name, and their state as tensors by the names of parameters."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .lion import Lion
from .muon import Muon, split
from .recipe import Steps

# a number of the state or of a group, not a tensor
NUMBER = ":number"
GROUP = "groups."
CLASS = "class."


def build(parameters: Mapping[str, nn.Parameter], steps: Steps) -> Optimizer:
    """The optimizer of a recipe. ValueError for an unknown one, a missing package, or an option it does not have."""
    if not parameters:
        raise ValueError("There is nothing to train: the part has no parameters.")
    trained, betas = list(parameters.values()), (steps.beta_1, steps.beta_2)
    if steps.optimizer == "adamw":
        # one pass over the weights, and no second copy of them
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)
        return torch.optim.AdamW(trained, steps.lr, betas, steps.eps, steps.weight_decay, fused=fused)
    if steps.optimizer == "adamw8bit":
        return _load_bitsandbytes().optim.AdamW8bit(trained, steps.lr, betas, steps.eps, steps.weight_decay)
    if steps.optimizer == "lion":
        return Lion(trained, steps.lr, betas, steps.weight_decay)
    if steps.optimizer == "muon":
        return Muon(
            *split(parameters), lr=steps.lr, betas=betas, eps=steps.eps, weight_decay=steps.weight_decay
        )
    return _build_class(trained, steps)


def state_tensors(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """All that an optimizer remembers, as `<parameter>.<name>`, no two tensors in one memory.

    ValueError for an optimizer that keeps anything but tensors and numbers.
    """
    optimizer = _bare(optimizer)
    names = {id(parameter): name for name, parameter in parameters.items()}
    tensors = {CLASS + type(optimizer).__name__: torch.zeros(())}
    for parameter, state in optimizer.state.items():
        for field, value in state.items():
            tensors |= _stored(f"{names[id(parameter)]}.{field}", value)
    for number, group in enumerate(optimizer.param_groups):
        for field, value in group.items():
            # what it adapts by itself; lr is the schedule's
            own = isinstance(value, int | float) and value != optimizer.defaults.get(field, value)
            if own and field != "lr":
                tensors |= _stored(f"{GROUP}{number}.{field}", value)
    return _apart(tensors)


def load_state_tensors(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Take over what `state_tensors` gave. ValueError where it is that of another optimizer or of other parameters."""
    optimizer = _bare(optimizer)
    if CLASS + type(optimizer).__name__ not in tensors:
        kinds = [key.removeprefix(CLASS) for key in tensors if key.startswith(CLASS)]
        raise ValueError(
            f"The state is that of {', '.join(kinds) or 'no optimizer'}, this training uses "
            f"{type(optimizer).__name__}: go on with the same steps.optimizer, or begin anew."
        )
    names = {id(parameter): name for name, parameter in parameters.items()}
    trained = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    places = {name: number for number, name in enumerate(trained)}
    groups = optimizer.state_dict()["param_groups"]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        name, _, field = key.rpartition(".")
        # a copy: whoever holds the tensors keeps them as they are
        value = tensor.item() if field.endswith(NUMBER) else tensor.clone()
        if name in places:
            state.setdefault(places[name], {})[field.removesuffix(NUMBER)] = value
        elif name.startswith(GROUP):
            groups[int(name.removeprefix(GROUP))][field.removesuffix(NUMBER)] = value
        elif not key.startswith(CLASS):
            raise ValueError(
                f'The optimizer\'s state is of another training: it has "{key}", which is not trained.'
            )
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _bare(optimizer: Any) -> Optimizer:
    """The optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _stored(key: str, value: Any) -> dict[str, Tensor]:
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {key: value.detach()}
    if isinstance(value, int):
        return {key + NUMBER: torch.tensor(value)}
    if isinstance(value, float):
        return {key + NUMBER: torch.tensor(value, dtype=torch.float64)}
    raise ValueError(
        f"This optimizer keeps {type(value).__name__} in {key}, and only tensors and numbers can be saved: choose "
        "another."
    )


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in its own memory: bitsandbytes keeps one table for all parameters, and a file takes it once."""
    seen: set[int] = set()
    for key, tensor in tensors.items():
        if type(tensor) is Tensor and tensor.numel():
            if tensor.data_ptr() in seen:
                tensors[key] = tensor = tensor.clone()
            seen.add(tensor.data_ptr())
    return tensors


def _load_bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(f'The optimizer "adamw8bit" {bitsandbytes_words("adamw")} ({error})') from None


def bitsandbytes_words(instead: str) -> str:
    """The rest of a sentence on what needs that package where it is missing."""
    return (
        "needs the package bitsandbytes, which is not there. Install it with "
        f'"pip install --no-deps bitsandbytes", or choose {instead}.'
    )


def _build_class(trained: list[nn.Parameter], steps: Steps) -> Optimizer:
    """An optimizer of an installed package, by the dotted name of its class."""
    package, _, name = steps.optimizer.rpartition(".")
    if not package:
        raise ValueError(
            f'There is no optimizer "{steps.optimizer}": choose adamw, adamw8bit, lion, muon, or the dotted name of a '
            'class such as "torch.optim.RAdam".'
        )
    try:
        kind = getattr(importlib.import_module(package), name, None)
    except ImportError as error:
        raise ValueError(
            f'The optimizer "{steps.optimizer}" needs a package that is not there ({error}). Install it, or choose '
            '"adamw".'
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise ValueError(f'"{steps.optimizer}" is no optimizer of PyTorch.')
    return kind(trained, **_options(kind, steps))


def _options(kind: type[Optimizer], steps: Steps) -> dict[str, Any]:
    """The recipe's options that a class takes; ValueError where one that it lacks was set."""
    usual = Steps()
    settings = {
        "weight_decay": (steps.weight_decay, usual.weight_decay),
        "betas": ((steps.beta_1, steps.beta_2), (usual.beta_1, usual.beta_2)),
        "eps": (steps.eps, usual.eps),
    }
    taken = inspect.signature(kind).parameters
    for name, (value, default) in settings.items():
        if name not in taken and value != default:
            raise ValueError(f"{kind.__name__} has no {name}: leave it at {default}.")
    return {"lr": steps.lr, **{name: value for name, (value, _) in settings.items() if name in taken}}
