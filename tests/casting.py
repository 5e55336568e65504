"""Layers that keep their weights in another dtype and cast them for every call, as a host does."""

from contextlib import nullcontext

from torch import nn

from kinetograph.modules.layers.operations import TorchOperations


def casting(layer):
    """The layer as a host runs it: weights rest in another dtype and are cast for every call."""

    def forward(self, x):
        rest = self.weight, self.bias
        cast = [None if value is None else nn.Parameter(value.to(x), requires_grad=False) for value in rest]
        self.weight, self.bias = cast
        try:
            return layer.forward(self, x)
        finally:
            self.weight, self.bias = rest

    return type(layer.__name__, (layer,), {"forward": forward})


class CastingOperations(TorchOperations):
    Conv2d, Conv3d, GroupNorm = casting(nn.Conv2d), casting(nn.Conv3d), casting(nn.GroupNorm)

    @staticmethod
    def weights(module, like):
        return nullcontext((module.weight.to(like), None if module.bias is None else module.bias.to(like)))
