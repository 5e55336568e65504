"""The layer constructors that a model is built from, so that a host can bring its own.

A host casts, offloads and quantises weights inside its own layer classes. Models here therefore never
name `torch.nn` layers: they take an `Operations` and build from it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn


class Operations(Protocol):
    """Constructors with `torch.nn` signatures, and two ways to reach weights that may live elsewhere."""

    Linear: Any
    Conv2d: Any
    Conv3d: Any
    LayerNorm: Any
    GroupNorm: Any
    Embedding: Any

    @staticmethod
    def weights(module: nn.Module, like: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor | None]]:
        """Weight and bias of a layer built from these operations, on the device and in the dtype of `like`.

        They are lent for the `with` block: a host that streams weights takes them back after it.
        """
        ...

    @staticmethod
    def cast(parameter: Tensor, like: Tensor) -> Tensor:
        """A bare parameter or buffer, on the device and in the dtype of `like`."""
        ...


class TorchOperations:
    """Plain `torch.nn`: for tests, training and benchmarks."""

    Linear: ClassVar = nn.Linear
    Conv2d: ClassVar = nn.Conv2d
    Conv3d: ClassVar = nn.Conv3d
    LayerNorm: ClassVar = nn.LayerNorm
    GroupNorm: ClassVar = nn.GroupNorm
    Embedding: ClassVar = nn.Embedding

    @staticmethod
    def weights(module: nn.Module, like: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor | None]]:
        return nullcontext((module.weight, module.bias))  # type: ignore[arg-type]

    @staticmethod
    def cast(parameter: Tensor, like: Tensor) -> Tensor:
        return parameter.to(like)


def is_taken_over(module: nn.Module) -> bool:
    """Whether calling a layer does more than its weights tell: its forward was replaced, or it has hooks.

    Adapters that leave weights alone work so (ComfyUI: comfy/weight_adapter/bypass.py); such a layer must be
    called. A forward that was put back as an attribute of the instance is the layer's own again.
    """
    own = module.__dict__.get("forward", module.forward)
    replaced = getattr(own, "__func__", None) is not type(module).forward
    return replaced or bool(module._forward_hooks or module._forward_pre_hooks)


def is_recorded() -> bool:
    """Whether somebody follows the operations: autograd, or torch.compile, which fuses and plans memory itself.

    Then nothing is written in place and nothing is cut into slabs.
    """
    return torch.is_grad_enabled() or torch.compiler.is_compiling()
