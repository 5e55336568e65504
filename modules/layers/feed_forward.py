"""The feed-forward of a transformer: a linear layer, an activation, a linear layer back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import slabs
from .calls import Call, call_layer
from .operations import Operations, is_taken_over


@dataclass(frozen=True)
class Activation:
    """A function of single numbers, or of halves of the channels."""

    value: Callable[[Tensor], Tensor]
    # (gradient of the value, argument): writes the gradient of the argument into its place
    turn_back: Callable[[Tensor, Tensor], object]

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Activate.apply(x, self)
        return self.value(x)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _turn_gelu(grad: Tensor, x: Tensor) -> None:
    torch.ops.aten.gelu_backward.grad_input(grad, x, approximate="tanh", grad_input=x)


def _geglu(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return F.gelu(gate).mul_(value)


def _turn_geglu(grad: Tensor, x: Tensor) -> None:
    value, gate = x.chunk(2, dim=-1)
    changed = value * grad
    torch.mul(grad, F.gelu(gate), out=value)
    torch.ops.aten.gelu_backward.grad_input(changed, gate, grad_input=gate)


# GELU by its tanh formula (arXiv 1606.08415)
gelu_tanh = Activation(_gelu, _turn_gelu)
# the first half of the channels times the GELU of the second (arXiv 2002.05202)
geglu = Activation(_geglu, _turn_geglu)


class _Activate(torch.autograd.Function):
    """An activation in training, at the place where a transformer is widest: the gradient takes the argument's place.

    Nothing else needs the argument by then. A second backward pass through the same graph is refused by PyTorch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(x)
        return activation.value(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        ctx.activation.turn_back(grad, x)
        return x, None


class _Narrow(torch.autograd.Function):
    """An activation and a frozen linear layer behind it, some tokens at a time: what lies between them is never whole."""

    @staticmethod
    def forward(
        ctx: Any, wide: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
    ) -> Tensor:
        rows_nd = wide.contiguous().flatten(0, -2)
        ctx.activation, ctx.shape = activation, wide.shape
        ctx.save_for_backward(rows_nd, weight)
        y_nd = rows_nd.new_empty(len(rows_nd), len(weight))
        for place in _places(rows_nd):
            y_nd[place] = F.linear(activation.value(rows_nd[place]), weight, bias)
        return y_nd.view(*wide.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows_nd, weight = ctx.saved_tensors
        grad_nd, weight = grad.flatten(0, -2), weight.to(grad.dtype)
        for place in _places(rows_nd):
            ctx.activation.turn_back(grad_nd[place] @ weight, rows_nd[place])
        return rows_nd.view(ctx.shape), None, None, None


def _places(rows_nd: Tensor) -> list[slice]:
    return list(slabs.TRAINING.spans(len(rows_nd), rows_nd.shape[1], rows_nd.device))


class Widen(nn.Module):
    """The first half; a module of its own for the name that checkpoints give it (`net.0.proj`)."""

    def __init__(self, width: int, wide: int, ops: Operations, **factory):
        super().__init__()
        self.proj = ops.Linear(width, wide, **factory)


class FeedForward(nn.Module):
    """Four times as wide inside. `wide` is what the activation takes, twice that for a gated one."""

    def __init__(self, width: int, wide: int, activation: Activation, ops: Operations, **factory):
        super().__init__()
        self.ops, self.activation, self.wide = ops, activation, wide
        first = Widen(width, wide, ops, **factory)
        self.net = nn.ModuleList([first, nn.Identity(), ops.Linear(4 * width, width, **factory)])

    def forward(self, x: Tensor, call: Call = call_layer) -> Tensor:
        """The map of tokens (..., d); `call` is how a layer is called."""
        return self.narrow(self.widen(x, call), call)

    def widen(self, x: Tensor, call: Call = call_layer) -> Tensor:
        """What the activation takes."""
        return call(self.net[0].get_submodule("proj"), x)

    def narrow(self, wide: Tensor, call: Call = call_layer) -> Tensor:
        """The activation, and the way back."""
        last = self.net[2]
        if torch.is_grad_enabled() and wide.requires_grad and _is_frozen(last):
            with self.ops.weights(last, wide) as (weight, bias):
                return _Narrow.apply(wide, weight, bias, self.activation)
        # what is widest is let go before the next layer
        wide = self.activation(wide)
        return call(last, wide)

    def in_rows(
        self, x_bld: Tensor, budget: slabs.Budget
    ) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Some tokens (n, d) of x at a time, to be changed in place, and this map to run on them."""
        rows_nd = x_bld.view(-1, x_bld.shape[-1])
        places = list(budget.spans(len(rows_nd), self.wide, rows_nd.device))
        with self.fetched(rows_nd) if len(places) > 1 else nullcontext(self) as run:
            for place in places:
                yield rows_nd[place], run

    @contextmanager
    def fetched(self, like: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """The same map with weights fetched once: a host that streams them would move them at every call."""
        first, last = self.net[0].get_submodule("proj"), self.net[2]
        if is_taken_over(first) or is_taken_over(last):
            yield self
            return
        with self.ops.weights(first, like) as wide, self.ops.weights(last, like) as narrow:
            yield lambda x: F.linear(self.activation(F.linear(x, *wide)), *narrow)


def _is_frozen(layer: nn.Module) -> bool:
    """Whether a layer is no more than its weights, and these get no gradient."""
    return not is_taken_over(layer) and not any(p.requires_grad for p in layer.parameters())
