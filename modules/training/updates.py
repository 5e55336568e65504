"""What follows upon a loss: gradients, an update of what is trained, and what the optimizer remembers of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from . import optimizers
from .recipe import Recipe, Steps


class Updates(Protocol):
    """The way from losses to new weights. Processes that share a training call every method at the same place."""

    @property
    def is_whole(self) -> bool:
        """Whether this process holds all that the optimizer remembers, and not a share of it."""
        ...

    def backward(self, loss: Callable[[], Tensor], last: bool) -> Tensor:
        """Compute a loss and add its gradients to those before; returns it. `last`: the update has no more."""
        ...

    def apply(self, lr: float, limit: Callable[[float], float]) -> float:
        """Move the weights by the gradients' mean over all processes, and let these go; returns their norm.

        `limit` tells what gradients of a norm are cut to, where they are larger; 0: they stay.
        """
        ...

    def drop(self) -> None:
        """Let the gradients go."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers, as `<parameter>.<name>`. Whole for the first process alone."""
        ...

    def scale(self) -> dict[str, Any]:
        """How gradients in fp16 are scaled; empty where they are not."""
        ...

    def go_on(self, tensors: Mapping[str, Tensor], scale: Mapping[str, Any]) -> None:
        """Take over what `state` and `scale` gave, when the weights are those of then."""
        ...


class Engine(Protocol):
    """A package that makes the updates in place of this pack."""

    def check(self, recipe: Recipe, dtype: torch.dtype) -> None:
        """ValueError for what it cannot do."""
        ...

    def updates(self, trained: Mapping[str, nn.Parameter], steps: Steps) -> Updates:
        """The updates of a training."""
        ...


class OwnUpdates:
    """Updates by this pack: every process holds all gradients; `share` makes them those of all processes."""

    def __init__(
        self,
        trained: Mapping[str, nn.Parameter],
        steps: Steps,
        share: Callable[[Iterable[nn.Parameter]], None],
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.trained, self.share, self.scaler = trained, share, scaler
        self.optimizer = optimizers.build(trained, steps)

    @property
    def is_whole(self) -> bool:
        return True

    def backward(self, loss: Callable[[], Tensor], last: bool) -> Tensor:
        value = loss()
        self.scaler.scale(value).backward()
        return value.detach()

    def apply(self, lr: float, limit: Callable[[float], float]) -> float:
        self.share(self.trained.values())
        self.scaler.unscale_(self.optimizer)
        norm = self._cut(limit)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.drop()
        return norm

    def drop(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        return optimizers.state_tensors(self.optimizer, self.trained)

    def scale(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def go_on(self, tensors: Mapping[str, Tensor], scale: Mapping[str, Any]) -> None:
        optimizers.load_state_tensors(self.optimizer, self.trained, tensors)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(scale))

    def _cut(self, limit: Callable[[float], float]) -> float:
        """Cut the gradients; returns what their norm was."""
        parameters = [p for p in self.trained.values() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        most = limit(norm.item())
        if most:
            nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return norm.item()
