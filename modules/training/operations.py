"""Layers whose weights are kept finer than what is computed in, as those that are trained are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.part import EmptyOperations

Weights = tuple[Tensor, Tensor | None]


def cast_weights(layer: nn.Module, like: Tensor) -> Weights:
    """Weight and bias of a layer in the dtype of `like`; gradients find their way back to the layer's own."""
    weight, bias = layer.weight, layer.bias
    return weight.to(like.dtype), None if bias is None else bias.to(like.dtype)  # type: ignore[union-attr, operator]


def _casting(layer: type[nn.Module], compute: Callable[..., Tensor]) -> type[nn.Module]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return compute(self, x, *cast_weights(self, x))

    return type(layer.__name__, (layer,), {"forward": forward})


class CastOperations(EmptyOperations):
    """PyTorch's layers without values, which compute in the dtype of what goes through them.

    Autocast would do so for products alone: on a GPU its norms give fp32, and what keeps that for the backward pass takes
    twice the memory. Nor does it keep a cast weight longer than the layer's own pass.
    """

    Linear: ClassVar = _casting(EmptyOperations.Linear, lambda self, x, w, b: F.linear(x, w, b))
    Conv2d: ClassVar = _casting(EmptyOperations.Conv2d, lambda self, x, w, b: self._conv_forward(x, w, b))
    Conv3d: ClassVar = _casting(EmptyOperations.Conv3d, lambda self, x, w, b: self._conv_forward(x, w, b))
    LayerNorm: ClassVar = _casting(
        EmptyOperations.LayerNorm,
        lambda self, x, w, b: F.layer_norm(x, self.normalized_shape, w, b, self.eps),
    )
    GroupNorm: ClassVar = _casting(
        EmptyOperations.GroupNorm, lambda self, x, w, b: F.group_norm(x, self.num_groups, w, b, self.eps)
    )

    @staticmethod
    def weights(module: nn.Module, like: Tensor) -> AbstractContextManager[Any]:
        return nullcontext(cast_weights(module, like))
