"""The processes that share a training. One alone needs nothing; `tools/train.py` brings those of accelerate."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn


class Processes(Protocol):
    """Several processes of one training, one device each. Every process calls every method at the same place."""

    rank: int
    count: int
    device: torch.device

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        ...

    def wait(self) -> None:
        """Until all are here."""
        ...


class Alone:
    """One process."""

    rank, count = 0, 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        pass

    def mean(self, value: Tensor) -> Tensor:
        return value

    def wait(self) -> None:
        pass


def share_of(clips: list[int], processes: Processes) -> list[int]:
    """The clips of an update that this process takes; ValueError unless all take the same number."""
    if len(clips) % processes.count:
        raise ValueError(
            f"{len(clips)} clips of an update are not shared evenly by {processes.count} processes: set batch to a "
            f"multiple of {processes.count}."
        )
    own = len(clips) // processes.count
    return clips[processes.rank * own : (processes.rank + 1) * own]
