"""The feed-forward of a transformer: a linear layer, an activation, a linear layer back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations, is_recorded, is_taken_over

Activation = Callable[[Tensor], Tensor]  # 4 * width channels out


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula (arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


def geglu(x: Tensor) -> Tensor:
    """The first half of the channels times the GELU of the second (arXiv 2002.05202); may use up its argument."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate) if is_recorded() else value.mul_(F.gelu(gate))


class Widen(nn.Module):
    """The first half; a module of its own for the name that checkpoints give it (`net.0.proj`)."""

    def __init__(self, width: int, wide: int, activation: Activation, ops: Operations, **factory):
        super().__init__()
        self.activation = activation
        self.proj = ops.Linear(width, wide, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.proj(x))


class FeedForward(nn.Module):
    """Four times as wide inside. `wide` is what the activation takes, twice that for a gated one."""

    def __init__(self, width: int, wide: int, activation: Activation, ops: Operations, **factory):
        super().__init__()
        self.ops, self.activation, self.wide = ops, activation, wide
        first = Widen(width, wide, activation, ops, **factory)
        self.net = nn.ModuleList([first, nn.Identity(), ops.Linear(4 * width, width, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))

    @contextmanager
    def fetched(self, like: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """The same map with weights fetched once: a host that streams them would move them at every call."""
        first, last = self.net[0].get_submodule("proj"), self.net[2]
        if is_taken_over(first) or is_taken_over(last):
            yield self
            return
        with self.ops.weights(first, like) as wide, self.ops.weights(last, like) as narrow:
            yield lambda x: F.linear(self.activation(F.linear(x, *wide)), *narrow)
