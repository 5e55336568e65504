"""Low-rank changes of linear layers (LoRA, arXiv 2106.09685), beside the layers' own weights.

Each is one more path from a layer's input to its output, put there by a forward hook: names and weights of the network
stay, and whoever takes a layer's weights for itself sees that it is taken over (`layers/operations.py`). A weight with
the change merged in would need the gradient of a whole weight, and in 16 bit would round small changes away.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .draws import generator

# in the names of the trained tensors, behind the layer's
DOWN, UP = "lora_down", "lora_up"


class LowRank:
    """Halves for some linear layers of a network, by their names: down (r, in) and up (out, r), fp32.

    Their product times alpha / rank is what a layer's weight changes by. Down starts uniform in +-1/sqrt(in), as in
    kohya-ss/sd-scripts and PEFT, up at zero.
    """

    def __init__(self, layers: Mapping[str, nn.Module], rank: int, alpha: float, seed: int = 0) -> None:
        self.layers, self.rank, self.alpha = dict(layers), rank, alpha
        self.halves: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for number, (name, layer) in enumerate(self.layers.items()):
            self.halves[name] = _halves(layer.weight, rank, number, seed)  # type: ignore[arg-type]

    @property
    def scale(self) -> float:
        """What the product of the halves is multiplied with."""
        return self.alpha / self.rank

    def parameters(self) -> dict[str, nn.Parameter]:
        """All halves by name."""
        return {
            f"{name}.{kind}": half
            for name, pair in self.halves.items()
            for kind, half in zip((DOWN, UP), pair, strict=True)
        }

    def attach(self, strength: float = 1.0) -> list[Any]:
        """Put the paths in; returns the hooks, whose `remove` takes them out again."""
        return [
            layer.register_forward_hook(_path(*self.halves[name], strength * self.scale))
            for name, layer in self.layers.items()
        ]

    @contextmanager
    def attached(self, strength: float = 1.0) -> Iterator[None]:
        """The paths, for a `with` block."""
        hooks = self.attach(strength)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _halves(weight: Tensor, rank: int, number: int, seed: int) -> tuple[nn.Parameter, nn.Parameter]:
    rows, columns = weight.shape[0], weight[0].numel()
    dice = generator("low rank", number, seed)
    down = (torch.rand(rank, columns, generator=dice) * 2 - 1) / sqrt(columns)
    return nn.Parameter(down.to(weight.device)), nn.Parameter(torch.zeros(rows, rank, device=weight.device))


def _path(down: Tensor, up: Tensor, scale: float) -> Any:
    """A forward hook that adds scale * up(down(x)); a convolution of one pixel is a linear layer, too."""

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x = inputs[0]
        if isinstance(layer, nn.Conv2d):
            narrow = scale * F.conv2d(x, _as(down, x)[..., None, None])
            return out + F.conv2d(narrow, _as(up, narrow)[..., None, None])
        narrow = scale * F.linear(x, _as(down, x))
        # one pass over what is wide, and no tensor between
        rows = torch.addmm(out.reshape(-1, out.shape[-1]), narrow.flatten(0, -2), _as(up, out).t())
        return rows.view(out.shape)

    return add


def _as(half: Tensor, x: Tensor) -> Tensor:
    """A half in the dtype of what goes through it; autocast would do the same for fp32 input."""
    return half.to(x.dtype)
