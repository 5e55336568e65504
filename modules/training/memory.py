"""What a training will hold at once, before it begins: on fake tensors, which compute nothing and take no memory."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..layers.positions import TableCache
from . import batch
from .loop import Training
from .recipe import Steps
from .subject import Example

GIB = 2**30
# bytes that an optimiser keeps of a parameter, in fp32; of 8-bit AdamW see `_eight_bit`
STATE = {"adamw": 8, "lion": 4, "muon": 4}
# of bitsandbytes: smaller tensors stay in fp32, larger ones have a scale for each block
LEAST_8_BIT, BLOCK_8_BIT = 4096, 256


@dataclass(frozen=True)
class Predicted:
    """Bytes of one training on one device, without what the driver takes and what an allocator wastes."""

    # of the network and of what is trained beside it
    weights: int
    # by the graph between forward and backward
    held: int
    # most beyond the weights in forward and backward, with the gradients
    peak: int
    # of what is trained
    gradients: int
    optimizer: int
    # of the running mean
    average: int = 0

    @property
    def total(self) -> int:
        """Most at once: in the backward pass, or where that is more in the update."""
        return self.weights + self.optimizer + self.average + max(self.peak, self.gradients)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, from its birth to its release.

    Workspaces inside a kernel are not seen; what existed before and the views of it are not counted. Real tensors are
    seen as fakes of `mode`.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.peak = 0
        self.live = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.prim.device.default:
            # asked for thousands of times
            return func(*args)
        args = [self._fake(value) for value in args]
        named = {name: self._fake(value) for name, value in (kwargs or {}).items()}
        result = func(*args, **named)
        fresh = [s for s in _storages((result,)) if s._cdata not in self._known]
        if fresh:
            for storage in _storages((*args, *named.values())):
                self._know(storage, 0)
            for storage in fresh:
                self._know(storage, storage.nbytes())
            self.peak = max(self.peak, self.live)
        return result

    def _fake(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(self._fake, value))
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        return self.mode.from_tensor(value)

    def _know(self, storage: torch.UntypedStorage, count: int) -> None:
        key = storage._cdata
        if key in self._known:
            return

        def release(_: Any) -> None:
            del self._known[key]
            self.live -= count

        self._known[key] = weakref.ref(storage, release)
        self.live += count


def predict(
    network: nn.Module, trained: Mapping[str, nn.Parameter], loss: Callable[[], Tensor], steps: Steps
) -> Predicted:
    """What a training holds whose every backward pass is that of `loss`.

    The network and what is trained stay as they are, gradients aside, which are dropped. They may hold fake tensors, all
    of one mode.
    """
    gradients = sum(p.numel() * p.element_size() for p in trained.values())
    with _faked(network, trained) as mode, mode, LiveBytes(mode) as bytes_:
        if steps.batch > steps.at_once:
            # those of the clips before
            for parameter in trained.values():
                parameter.grad = torch.zeros_like(parameter)
        result = loss()
        held = bytes_.live
        result.backward()
    return Predicted(
        weights=bytes_of([*network.parameters(), *network.buffers(), *trained.values()]),
        held=held,
        peak=bytes_.peak,
        gradients=gradients,
        optimizer=state_bytes(trained, steps.optimizer),
        average=gradients if steps.ema else 0,
    )


def of_training(training: Training, examples: list[Example]) -> Predicted:
    """What a training holds that has not begun, by examples of equal shapes that go through its network at once."""
    subject, steps, device = training.subject, training.recipe.steps, training.processes.device
    clips = (examples * steps.at_once)[: min(steps.at_once, steps.batch)]
    # random numbers have values, and so has what follows from them
    noisy = batch.add_noise(subject, clips, training.recipe.levels, steps.seed, device)
    arguments = batch.tell(subject, clips, device, training.dtype)
    # a process keeps its table from the first call on: none of fake numbers
    subject.noise.timestep(noisy.sigma)

    def loss() -> Tensor:
        with training.autocast():
            return batch.answer(subject, noisy.x, noisy.sigma, arguments, training.dtype).square().mean()

    return predict(subject.network, training.trained, loss, steps)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of all storages, each once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def state_bytes(trained: Mapping[str, Tensor], optimizer: str) -> int:
    """What an optimiser remembers of these parameters; of one that is not known here as much as AdamW does."""
    if optimizer == "adamw8bit":
        return sum(_eight_bit(parameter.numel()) for parameter in trained.values())
    return STATE.get(optimizer, STATE["adamw"]) * sum(p.numel() for p in trained.values())


def _eight_bit(count: int) -> int:
    if count < LEAST_8_BIT:
        return 8 * count
    return 2 * (count + 4 * -(-count // BLOCK_8_BIT))


@contextmanager
def _faked(network: nn.Module, trained: Mapping[str, nn.Parameter]) -> Iterator[FakeTensorMode]:
    """Tables that a network keeps are made anew for the time, and gradients are dropped: neither would be real."""
    fakes = [p for p in (*trained.values(), *network.parameters()) if isinstance(p, FakeTensor)]
    mode = fakes[0].fake_mode if fakes else FakeTensorMode(allow_non_fake_inputs=True)
    kept = [
        (module, name, value)
        for module in network.modules()
        for name, value in vars(module).items()
        if isinstance(value, TableCache)
    ]
    for module, name, _ in kept:
        setattr(module, name, TableCache())
    try:
        yield mode
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        for parameter in trained.values():
            parameter.grad = None


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for value in values:
        if isinstance(value, Tensor):
            yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(value)
