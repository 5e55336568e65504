"""The running mean of weights that are trained, which is often better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NUM_UPDATES = "num_updates"


class Average:
    """Running means of parameters by name, in their own fp32.

    ValueError for a decay outside 0..1, and for weights in 16 bit: steps of a mean are lost below their last digit.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f"The decay of the running mean (steps.ema) is {decay}: between 0 and 1, as 0.9999."
            )
        for name, parameter in parameters.items():
            if parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"The running mean needs weights in fp32: {name} is {parameter.dtype}.")
        self.parameters, self.decay, self.num_updates = dict(parameters), decay, 0
        self.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the weights as they are after an update."""
        self.num_updates += 1
        part = 1 - decay_at(self.num_updates, self.decay)
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter, part)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The means stand in the parameters, and the parameters are kept, until the end of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """The means by name, and how often they moved."""
        return {**self.weights, NUM_UPDATES: torch.tensor(self.num_updates)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state; ValueError where it is that of other weights."""
        shapes = {name: tensor.shape for name, tensor in tensors.items() if name != NUM_UPDATES}
        if shapes != {name: weight.shape for name, weight in self.weights.items()}:
            raise ValueError(
                f"The running means are those of another training: {len(shapes)} tensors, {len(self.weights)} wanted."
            )
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])
        self.num_updates = int(tensors[NUM_UPDATES])

    @torch.no_grad()
    def _swap(self) -> None:
        """One tensor at a time: no second set of weights."""
        for name, parameter in self.parameters.items():
            kept = parameter.clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(kept)


def decay_at(number: int, most: float) -> float:
    """What the mean keeps at an update, from 1: nothing at the first, and more the older it is (diffusers' EMAModel)."""
    return 0.0 if number <= 1 else min(number / (9 + number), most)
