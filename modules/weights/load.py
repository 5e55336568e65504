"""Weights into a module that was built on the meta device: strictly, and without a second copy."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from .detect import Finding, HasParts, detect
from .files import open_weights, read_header
from .part import Kind
from .trouble import CheckpointError


def read_part(
    path: str | Path, families: Iterable[HasParts], kind: Kind | None = None
) -> tuple[Finding, dict[str, Tensor]]:
    """(what the file is, its memory-mapped tensors in our naming); CheckpointError unless every key fits."""
    finding = detect(read_header(path), families, kind).check()
    return finding, rename(open_weights(path), finding.renames)


def rename(tensors: Mapping[str, Tensor], renames: Mapping[str, str | None]) -> dict[str, Tensor]:
    """The tensors that `renames` names, under our keys."""
    return {ours: tensors[key] for key, ours in renames.items() if ours is not None}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], name: str = "The checkpoint") -> nn.Module:
    """Give a module on the meta device its weights; the tensors become the parameters as they are.

    CheckpointError when a key is missing, unexpected or misshapen, before anything is assigned.
    ValueError when something of the module stays without data: it has a tensor no checkpoint holds.
    """
    check_against(module, tensors, name)
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    everything = (*module.named_parameters(), *module.named_buffers())
    if empty := [key for key, tensor in everything if tensor.is_meta]:
        raise ValueError(
            f"{type(module).__name__} keeps tensors that no checkpoint holds: {', '.join(empty[:5])}"
        )
    return module


def check_against(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """CheckpointError unless keys and shapes are exactly those of the module's state dict."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    faults = {
        "missing": [key for key in wanted if key not in tensors],
        "unexpected": [key for key in tensors if key not in wanted],
        "misshapen": [
            f"{key}: {tuple(tensors[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    words = [
        f"{len(keys)} {fault} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    if words:
        raise CheckpointError(
            f"{name} does not fit {type(module).__name__}: {'; '.join(words)}. Use the file as it was published."
        )
