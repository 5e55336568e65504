"""What every training here does alike: a running mean of the weights, and steps that are logged, saved and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .optimizers import BlockOptimizer
from .progress import RunLog, load_run, save_run

AVERAGE = 0.998  # what the running mean of the weights keeps at each step


def ramp(step: int, total: int, warm_up: float, hold: float = 0.5, least: float = 0.02) -> float:
    """Share of the peak learning rate: rises over `warm_up` steps, holds for a part of the way, falls evenly."""
    return min(1.0, (step + 1) / warm_up, max(least, (1 - step / total) / (1 - hold)))


def squared_errors(v: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of each row."""
    return (v.float() - wanted).square().flatten(1).mean(1)


def mean_of(errors: Tensor, chosen: Tensor) -> float:
    """The mean of the rows chosen, 0 where there are none."""
    kept = errors.detach()[chosen]
    return kept.mean().item() if len(kept) else 0.0


class Averaged:
    """A model, the running mean of its weights, and the optimizer."""

    def __init__(self, model: nn.Module, average: nn.Module, optimizer: BlockOptimizer) -> None:
        average.load_state_dict(model.state_dict())
        self.both = nn.ModuleDict({"model": model, "average": average})
        self.optimizer = optimizer

    def apply(self, lr: float, number: int) -> float:
        """Step along the gradients, cut to norm 1, and move the running mean; returns their norm."""
        norm = nn.utils.clip_grad_norm_(self.both["model"].parameters(), 1.0)
        self.optimizer.step(lr)
        self.follow(number)
        return norm.item()

    @torch.no_grad()
    def follow(self, number: int) -> None:
        """Move the running mean; young ones forget faster."""
        keep = min(AVERAGE, (number + 1) / (number + 10))
        model, average = (list(self.both[name].parameters()) for name in ("model", "average"))
        torch._foreach_lerp_(average, model, 1 - keep)

    def open(self, run: Path) -> int:
        """Take over the weights of a run's last saved step; returns that step."""
        state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
        self.both.load_state_dict(state["model"])
        return state["step"]


@dataclass(frozen=True)
class Plan:
    """How many steps in all, and after how many each something is written."""

    total: int
    log_every: int
    save_every: int
    check_every: int

    def is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total


def train(
    out: Path,
    training: Averaged,
    plan: Plan,
    learn: Callable[[int], dict[str, float]],
    check: Callable[[], dict[str, Any]],
) -> None:
    """`learn` for each step that is left, going on from the last saved one; what it and `check` return is logged."""
    done = load_run(out, training.both, training.optimizer)
    torch.manual_seed(done)
    log, checks = RunLog(out / "log.jsonl", plan.log_every), RunLog(out / "checks.jsonl", every=1)
    for step in range(done + 1, plan.total + 1):
        log.add(step, **learn(step))
        if plan.is_due(step, plan.save_every):
            save_run(out, step, training.both, training.optimizer)
        if plan.is_due(step, plan.check_every):
            state = torch.get_rng_state()
            checks.write(step=step, **check())
            # what is learned does not depend on how often it was checked
            torch.set_rng_state(state)
