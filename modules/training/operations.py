"""Layers whose weights are kept finer than what is computed in, as those that are trained are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.operations import TorchOperations
from ..weights.part import uninitialised

Weights = tuple[Tensor, Tensor | None]
LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm)


def cast_weights(layer: nn.Module, like: Tensor) -> Weights:
    """Weight and bias of a layer in the dtype of `like`; gradients find their way back to the layer's own."""
    weight, bias = layer.weight, layer.bias
    return weight.to(like.dtype), None if bias is None else bias.to(like.dtype)  # type: ignore[union-attr, operator, return-value]


def _casting(layer: type[nn.Module], compute: Callable[..., Tensor]) -> type[nn.Module]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return compute(self, x, *cast_weights(self, x))

    return type(layer.__name__, (layer,), {"forward": forward, "casts": True})


class CastOperations(TorchOperations):
    """PyTorch's layers, which compute in the dtype of what goes through them.

    Autocast would do so for products alone: on a GPU its norms give fp32, and what they keep for the backward pass takes
    twice the memory. Nor does a layer keep a cast weight longer than its own pass.
    """

    Linear: ClassVar = _casting(nn.Linear, lambda self, x, w, b: F.linear(x, w, b))
    Conv2d: ClassVar = _casting(nn.Conv2d, lambda self, x, w, b: self._conv_forward(x, w, b))
    Conv3d: ClassVar = _casting(nn.Conv3d, lambda self, x, w, b: self._conv_forward(x, w, b))
    LayerNorm: ClassVar = _casting(
        nn.LayerNorm, lambda self, x, w, b: F.layer_norm(x, self.normalized_shape, w, b, self.eps)
    )
    GroupNorm: ClassVar = _casting(
        nn.GroupNorm, lambda self, x, w, b: F.group_norm(x, self.num_groups, w, b, self.eps)
    )

    @staticmethod
    def weights(module: nn.Module, like: Tensor) -> AbstractContextManager[Any]:
        return nullcontext(cast_weights(module, like))


class EmptyCastOperations(CastOperations):
    """The same without values, for modules whose weights come from a file."""

    Linear: ClassVar = uninitialised(CastOperations.Linear)
    Conv2d: ClassVar = uninitialised(CastOperations.Conv2d)
    Conv3d: ClassVar = uninitialised(CastOperations.Conv3d)
    LayerNorm: ClassVar = uninitialised(CastOperations.LayerNorm)
    GroupNorm: ClassVar = uninitialised(CastOperations.GroupNorm)


def computes_in(network: nn.Module, dtype: torch.dtype) -> bool:
    """Whether every layer computes in a dtype by itself: it has such weights, or casts them. Else it needs autocast."""
    return all(
        parameter.dtype == dtype or getattr(layer, "casts", False)
        for layer in network.modules()
        if isinstance(layer, LAYERS)
        for parameter in layer.parameters(recurse=False)
    )
