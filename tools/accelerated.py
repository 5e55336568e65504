"""The processes that `accelerate launch` started, as the trainer sees them."""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn

from ..modules.training.sharding import is_share
from ..modules.training.updates import Engine
from . import zero2

# one that encodes a longer video than the others is waited for; one that died is noticed by the launcher
PATIENCE = timedelta(days=1)
# numbers in one message: what is sent is a copy
MESSAGE = 2**26
ORDINARY = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Accelerated:
    """`Processes` over accelerate: one device each, gradients shared by all-reduce, or updates by DeepSpeed's ZeRO-2.

    ValueError where accelerate was set to a way of sharing that this trainer leaves to its own configuration.
    """

    def __init__(self, cpu: bool = False) -> None:
        by_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
        if by_deepspeed:
            zero2.check_wish()
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        # precision is the recipe's
        accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[patience])
        kinds = (*ORDINARY, DistributedType.DEEPSPEED) if by_deepspeed else ORDINARY
        if accelerator.distributed_type not in kinds:
            raise ValueError(
                f"accelerate was set to {accelerator.distributed_type.value}. Launch plain processes (--multi_gpu, or --cpu), "
                f"or DeepSpeed's ZeRO-2 ({zero2.CONFIGURATION}); to share weights among plain ones set machine.sharing to "
                '"weights" in the configuration.'
            )
        self._accelerator = accelerator
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.device: torch.device = accelerator.device
        started = int(os.environ.get("WORLD_SIZE", self.count))
        if started != self.count:
            raise ValueError(
                f"{started} processes were started, and no GPU was found for them: to train on CPUs add --cpu behind the "
                "configuration."
            )
        self.engine: Engine | None = zero2.ZeRO2(self) if by_deepspeed else None

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes; of shared weights they are that already."""
        if self.count > 1:
            for some in _messages(p for p in parameters if not is_share(p)):
                _average(some, self.count)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def wait(self) -> None:
        """Until all are here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Part from the others; the last call."""
        self._accelerator.end_training()


def _messages(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one dtype, as many as go into a message; in the same order everywhere."""
    kinds: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        some = kinds.setdefault(parameter.dtype, [])
        if some and sum(p.numel() for p in some) + parameter.numel() > MESSAGE:
            yield kinds.pop(parameter.dtype)
            some = kinds.setdefault(parameter.dtype, [])
        some.append(parameter)
    yield from kinds.values()


def _average(parameters: list[nn.Parameter], count: int) -> None:
    """One message: all gradients in a row, and behind them of which parameters there are any.

    One without gradient has none in the mean either, unless another process has: an optimizer passes it by then.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    owned = torch.tensor([p.grad is not None for p in parameters]).to(grads[0])
    flat = torch.cat([*(grad.flatten() for grad in grads), owned])
    dist.all_reduce(flat)
    *pieces, owners = flat.split([*(grad.numel() for grad in grads), len(grads)])
    for parameter, piece, owner in zip(parameters, pieces, owners.tolist(), strict=True):
        parameter.grad = piece.div_(count).view_as(parameter) if owner else None
