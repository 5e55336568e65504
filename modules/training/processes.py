"""The processes that share a training. One alone needs nothing; `tools/train.py` brings those of accelerate."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from .updates import Engine


class Processes(Protocol):
    """Several processes of one training, one device each. Every process calls every method at the same place."""

    rank: int
    count: int
    device: torch.device
    # what makes the updates in place of this pack, with shares of its own
    engine: Engine | None

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
        self.engine: Engine | None = None

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


def agree(processes: Processes, what: str, *values: float) -> None:
    """ValueError, in all processes alike, unless these values are the same in all of them."""
    if processes.count == 1:
        return
    own = torch.tensor(values, dtype=torch.float64, device=processes.device)
    mean = processes.mean(own)
    apart = processes.mean((own - mean).abs())
    # a mean of equal numbers may differ from them in its last digit
    if bool((apart > 1e-9 * mean.abs()).any()):
        raise ValueError(
            f"The {processes.count} processes differ in {what}. All of them read the same configuration, models and data, "
            "and write to one folder that all of them see, with one version of each package."
        )
