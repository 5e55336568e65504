"""The feed-forward of a transformer: a linear layer, an activation, a linear layer back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations, is_recorded, is_taken_over

Activation = Callable[[Tensor], Tensor]  # 4 * width channels out


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula (arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


def geglu(x: Tensor) -> Tensor:
    """The first half of the channels times the GELU of the second (arXiv 2002.05202); may use up its argument."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Geglu.apply(x)
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate) if is_recorded() else value.mul_(F.gelu(gate))


class _Geglu(torch.autograd.Function):
    """The same for training: it keeps its argument alone, and writes both halves of the gradient into one tensor.

    What the plain formula keeps and makes is half as much again, at the place where a transformer is widest.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value, gate = x.chunk(2, dim=-1)
        grad_x = torch.empty_like(x)
        of_value, of_gate = grad_x.chunk(2, dim=-1)
        torch.mul(grad, F.gelu(gate), out=of_value)
        torch.ops.aten.gelu_backward.grad_input(grad * value, gate, grad_input=of_gate)
        return grad_x


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
