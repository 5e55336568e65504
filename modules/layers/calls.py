"""Calling the layers of a module many times, with weights that were fetched once: a host that streams them would move
them at every call.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations, is_recorded, is_taken_over

# how a layer is called: as it stands, or with weights that were fetched once
Call = Callable[[Any, Tensor], Tensor]


def call_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer as it stands."""
    return layer(x)


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """Every layer inside a module that has weights."""
    return (layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False)))


@contextmanager
def fetched(layers: Iterable[nn.Module], like: Tensor, ops: Operations) -> Iterator[Call]:
    """A way to call linear layers, and layer norms, over tokens with their weights fetched once."""
    with ExitStack() as stack:
        lent = {layer: stack.enter_context(ops.weights(layer, like)) for layer in layers}

        def call(layer: Any, x: Tensor) -> Tensor:
            weight, bias = lent[layer]
            if weight.ndim == 1:
                return F.layer_norm(x, weight.shape, weight, bias, layer.eps)
            return F.linear(x, weight, bias)

        yield call


@contextmanager
def calling(module: nn.Module, like: Tensor, ops: Operations) -> Iterator[Call]:
    """The same for all layers of a module; as they stand while a graph is being recorded, or where one is taken over."""
    layers = list(layers_of(module))
    if is_recorded() or any(map(is_taken_over, layers)):
        yield call_layer
        return
    with fetched(layers, like, ops) as call:
        yield call
