"""Weights into a module that was built on the meta device: strictly, and without a second copy."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .detect import detect
from .errors import CheckpointError
from .files import open_weights, read_header
from .finding import Finding
from .fused import take
from .part import Kind, PartsOfFamily


def read_part(
    path: str | Path, families: Iterable[PartsOfFamily], kind: Kind | None = None
) -> tuple[Finding, dict[str, Tensor]]:
    """(what the file is, its memory-mapped tensors in our naming); CheckpointError unless every key fits."""
    finding = detect(read_header(path), families, kind).check()
    return finding, open_part(path, finding)


def open_part(path: str | Path, finding: Finding) -> dict[str, Tensor]:
    """The memory-mapped tensors of a part that `detect` found complete, in our naming."""
    tensors = rename(open_weights(path), finding.renames)
    return tensors | {key: tensors[key].reshape(shape) for key, shape in finding.reshaped.items()}


def rename(tensors: Mapping[str, Tensor], renames: Mapping[str, str | None]) -> dict[str, Tensor]:
    """The tensors that `renames` names, under our keys."""
    return {ours: take(tensors, key) for key, ours in renames.items() if ours is not None}


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


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype, copy: bool = False
) -> nn.Module:
    """Give a host's meta module the weights of a complete part; those of another dtype are cast.

    Tensors already in `dtype` stay as they are, mapped from disk, unless `copy`. A host may hold its layers' weights back until this
    call, so shapes are not asked of the module: `Finding.check` has compared them. CheckpointError when the
    module did not take every tensor.
    """
    cast = {key: tensor.to(storage_dtype(key, tensor, dtype), copy=copy) for key, tensor in tensors.items()}
    missing, unexpected = module.load_state_dict(cast, strict=False, assign=True)
    if missing or unexpected:
        raise CheckpointError(
            f"{type(module).__name__} did not take the checkpoint: {len(missing)} weights missing "
            f"({', '.join(missing[:5])}), {len(unexpected)} unexpected ({', '.join(unexpected[:5])})."
        )
    return module.requires_grad_(False)


def storage_dtype(key: str, tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What a tensor is kept in when the model is kept in `dtype`.

    8-bit floats hold only the matrices inside the blocks: embeddings, norms, tables and biases keep their own dtype, as
    in the published fp8 files of kijai's repositories.
    """
    if dtype.itemsize > 1:
        return dtype
    is_matrix = tensor.ndim == 2 and key.endswith(".weight")
    return dtype if is_matrix and "blocks." in key else tensor.dtype


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
