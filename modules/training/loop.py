"""The one loop: clips in, gradients, an update, the next."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from . import batch, schedules, sharding
from .average import Average
from .draws import order
from .loss import losses
from .operations import computes_in
from .processes import Alone, Processes, share_of
from .recipe import Recipe
from .state import State
from .subject import Example, Subject
from .updates import OwnUpdates, Updates

MODEL, OPTIMIZER, AVERAGE = "model.", "optimizer.", "ema."


class Examples(Protocol):
    """The encoded clips of a training."""

    # text features (l, d) of no caption; None where there are none
    empty: Tensor | None

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...


@dataclass(frozen=True)
class Progress:
    """One update."""

    step: int
    loss: float
    # of the gradients, before they were cut
    norm: float
    lr: float
    seconds: float


class Training:
    """A subject, what is trained of it, and how far that has come."""

    def __init__(
        self,
        subject: Subject,
        trained: Mapping[str, nn.Parameter],
        examples: Examples,
        recipe: Recipe,
        processes: Processes | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not len(examples):
            raise ValueError("There is nothing to train on: the data set holds no clip.")
        self.subject, self.trained, self.examples, self.recipe = subject, dict(trained), examples, recipe
        self.processes, self.dtype = processes or Alone(), dtype
        self.updates = self._updates()
        self.average = Average(self.trained, recipe.steps.ema) if recipe.steps.ema else None
        self.done = 0
        share_of(self._clips_of(1), self.processes)
        if not self.is_whole:
            sharding.check_calls(examples, recipe.steps.at_once)

    @property
    def is_whole(self) -> bool:
        """Whether this process holds all of what is trained and remembered, and not a share of it."""
        return self.updates.is_whole and not any(map(sharding.is_share, self.trained.values()))

    def step(self) -> Progress:
        """The next update. ArithmeticError when the loss is no number: nothing is changed then."""
        start, number, steps = time.perf_counter(), self.done + 1, self.recipe.steps
        loss = self.processes.mean(self._gradients(share_of(self._clips_of(number), self.processes))).item()
        self._check(loss, number)
        lr = steps.lr * schedules.rate(number, steps)
        norm = self.updates.apply(lr, lambda norm: schedules.clip_norm(number, norm, steps))
        if self.average:
            self.average.follow()
        self.done = number
        return Progress(number, loss, norm, lr, time.perf_counter() - start)

    def result(self) -> dict[str, Tensor]:
        """What was trained: the running mean of the weights where there is one. Whole for the first process alone."""
        return self._whole(
            self.average.weights if self.average else {k: p.detach() for k, p in self.trained.items()}
        )

    def network_state(self) -> dict[str, Tensor]:
        """The network as it is, by its own names. Whole for the first process alone."""
        return self._whole(self.subject.network.state_dict())

    def state(self) -> State:
        """All that going on needs. Whole for the first process alone, but all that share weights call it."""
        tensors: dict[str, Tensor] = {MODEL + name: p.detach() for name, p in self.trained.items()}
        tensors |= _below(OPTIMIZER, self.updates.state())
        if self.average:
            tensors |= _below(AVERAGE, self.average.state())
        return State(self.done, self._whole(tensors), {"scale": self.updates.scale()})

    @torch.no_grad()
    def go_on(self, state: State) -> None:
        """Take over a state; ValueError where it is that of another training."""
        stored = _of(MODEL, state.tensors)
        if {k: v.shape for k, v in stored.items()} != {k: p.shape for k, p in self.trained.items()}:
            raise ValueError(
                f"The state of step {state.step} is that of another training: it holds {len(stored)} tensors, this one "
                f"trains {len(self.trained)}. Give this one a name of its own, or delete the folder."
            )
        for name, value in self._shares(stored).items():
            self.trained[name].copy_(value)
        self.updates.go_on(self._shares(_of(OPTIMIZER, state.tensors)), state.facts["scale"])
        if self.average:
            self.average.load(self._shares(_of(AVERAGE, state.tensors)))
        self.done = state.step

    def _updates(self) -> Updates:
        engine, steps = self.processes.engine, self.recipe.steps
        if engine is not None:
            return engine.updates(self.trained, steps)
        # fp16 gradients would be lost below its smallest number
        scaler = torch.amp.GradScaler(self.processes.device.type, enabled=self.dtype == torch.float16)
        return OwnUpdates(self.trained, steps, self.processes.share_gradients, scaler)

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return sharding.whole(tensors, keep=self.processes.rank == 0)

    def _shares(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return sharding.shares(tensors, self.trained)

    def _clips_of(self, number: int) -> list[int]:
        """Places in the stream of samples that an update takes: epoch after epoch, each in its own order."""
        size = self.recipe.steps.batch
        return list(range((number - 1) * size, number * size))

    def _example(self, place: int) -> Example:
        epoch, rest = divmod(place, len(self.examples))
        number = order(len(self.examples), epoch, self.recipe.steps.seed)[rest]
        example = replace(self.examples[number], visit=epoch)
        return batch.drop(example, self.examples.empty, self.recipe.data, self.recipe.steps.seed)

    def _gradients(self, places: list[int]) -> Tensor:
        """Backward of this process's clips; returns their mean loss."""
        steps, total = self.recipe.steps, torch.zeros((), device=self.processes.device)
        calls = batch.alike(map(self._example, places), steps.at_once)
        for number, examples in enumerate(calls, 1):
            loss = partial(self._part, examples, len(places))
            total += self.updates.backward(loss, last=number == len(calls))
        return total

    def _part(self, examples: list[Example], count: int) -> Tensor:
        """What these clips have in the mean loss of `count`."""
        return self.losses_of(examples).sum() / count

    def losses_of(self, examples: list[Example]) -> Tensor:
        """The losses (b,) of clips of equal shapes."""
        recipe, subject, device = self.recipe, self.subject, self.processes.device
        noisy = batch.add_noise(subject, examples, recipe.levels, recipe.steps.seed, device)
        arguments = batch.tell(subject, examples, device, self.dtype)
        speaks = batch.answer if recipe.loss.kind == "learned_range" else batch.output_of
        with self.autocast():
            output = speaks(subject, noisy.x, noisy.sigma, arguments, self.dtype)
        keys = [(example.index, example.visit, recipe.steps.seed) for example in examples]
        return losses(output, noisy, subject.noise, recipe.loss, keys)

    def autocast(self) -> AbstractContextManager[Any]:
        """Products in the training's dtype, for layers that do not see to it themselves."""
        if self.dtype == torch.float32 or computes_in(self.subject.network, self.dtype):
            return nullcontext()
        return torch.autocast(self.processes.device.type, self.dtype)

    def _check(self, loss: float, number: int) -> None:
        if loss != loss or abs(loss) == float("inf"):
            self.updates.drop()
            raise ArithmeticError(
                f"The loss of step {number} is {loss}: nothing was learned from it. Lower lr, or choose precision "
                "bf16 or fp32."
            )


def run(training: Training, after: Callable[[Progress], None]) -> None:
    """Every step that is left; `after` each may save, show and interrupt by raising."""
    while training.done < training.recipe.steps.total:
        after(training.step())


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
