"""What a value of the host is, as a few bytes: equal for equal values, also in another process.

Weights are too many to read: of each, its shape and some of its numbers stand for it.
"""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SAMPLED = 16  # numbers at each end of a weight
DEPTH = 6
OURS = "kinetograph_"


def digest(*values: Any) -> str:
    """A name for values: tensors by all their numbers, functions by their names and what they hold."""
    hashed = hashlib.sha256()
    for value in values:
        _feed(hashed, value, DEPTH)
    return hashed.hexdigest()


def digest_model(model: Any) -> str:
    """A name for a MODEL: its weights as loaded, and everything that nodes patched."""
    base = model.model
    kept = {key: entry.weight for key, entry in getattr(model, "backup", {}).items()}
    weights = {f"diffusion_model.{key}": value for key, value in base.diffusion_model.state_dict().items()}
    weights |= {key: value for key, value in kept.items() if key in weights}
    own = model.object_patches.get("model_sampling", base.model_sampling)
    sampling = own.state_dict() if isinstance(own, torch.nn.Module) else {}
    patches = {key: [_sampled_patch(patch) for patch in entries] for key, entries in model.patches.items()}
    return digest(
        type(base), _sampled(weights), sampling, patches, sorted(model.object_patches), model.model_options
    )


def digest_module(module: torch.nn.Module) -> str:
    """A name for a network: its kind, and its weights."""
    return digest(type(module).__name__, _sampled(module.state_dict()))


def _sampled(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _ends(value) for key, value in weights.items() if isinstance(value, Tensor)}


def _sampled_patch(patch: Any) -> Any:
    """A patch of weights (strength, what, ...) with the ends of its tensors."""
    if isinstance(patch, Tensor):
        return _ends(patch)
    if isinstance(patch, tuple | list):
        return [_sampled_patch(part) for part in patch]
    return [type(patch).__name__, _sampled_patch(patch.weights)] if hasattr(patch, "weights") else patch


def _ends(weight: Tensor) -> Any:
    flat = weight.detach().flatten()
    ends = torch.cat([flat[:SAMPLED], flat[-SAMPLED:]]) if flat.numel() else flat
    return [tuple(weight.shape), str(weight.dtype), ends.float().cpu()]


def _feed(hashed: Any, value: Any, depth: int) -> None:
    hashed.update(f"<{type(value).__name__}>".encode())
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        hashed.update(f"{tuple(plain.shape)}{plain.dtype}".encode())
        hashed.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    elif value is None or isinstance(value, str | int | float | bool | bytes):
        hashed.update(repr(value).encode())
    elif isinstance(value, Mapping):
        # guards of this pack follow from the model
        for key in sorted((key for key in value if not str(key).startswith(OURS)), key=str):
            hashed.update(str(key).encode())
            _feed(hashed, value[key], depth)
    elif isinstance(value, list | tuple):
        for part in value:
            _feed(hashed, part, depth)
    elif isinstance(value, set | frozenset):
        for part in sorted(map(str, value)):
            hashed.update(part.encode())
    elif depth:
        _feed_object(hashed, value, depth - 1)


def _feed_object(hashed: Any, value: Any, depth: int) -> None:
    """A function by its name and what it holds; anything else by its class and its attributes."""
    if isinstance(value, functools.partial):
        _feed(hashed, [value.func, value.args, value.keywords], depth)
    elif isinstance(value, torch.nn.Module):
        hashed.update(digest_module(value).encode())
    elif hasattr(value, "__qualname__"):
        hashed.update(f"{value.__module__}.{value.__qualname__}".encode())
        for cell in getattr(value, "__closure__", None) or ():
            _feed(hashed, cell.cell_contents, depth)
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, type):
            _feed(hashed, owner, depth)
    else:
        hashed.update(f"{type(value).__module__}.{type(value).__qualname__}".encode())
        _feed(hashed, getattr(value, "__dict__", {}), depth)
