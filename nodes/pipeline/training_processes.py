"""A training that several processes share: who encodes what, who holds what, and that all are of one mind."""

from pathlib import Path

import torch
from torch import nn

from ...modules.training import optimizers, sharding, state
from ...modules.training.cache import Cache
from ...modules.training.data.plan import Plan
from ...modules.training.loop import Training
from ...modules.training.processes import Processes, agree, share_of
from ...modules.training.recipe import Recipe
from ...modules.training.subject import Subject
from ..host import training as host
from ..host.description import VideoModel
from . import training_examples
from .training_examples import Encoders


def check(recipe: Recipe, processes: Processes) -> None:
    """ValueError for shares and optimizers that cannot be."""
    share_of(list(range(recipe.steps.batch)), processes)
    # tells a package that is missing
    optimizers.build({"none": nn.Parameter(torch.zeros(2, 2))}, recipe.steps)
    dtype = host.training_dtype(recipe.machine.precision)
    if processes.engine is not None:
        processes.engine.check(recipe, dtype)
    if recipe.machine.sharing == "weights" and processes.count > 1:
        sharding.check(recipe, dtype)


def encode(
    said: VideoModel, encoders: Encoders, plan: Plan, cache: Cache, recipe: Recipe, processes: Processes
) -> None:
    """Each process encodes a part of the clips; when this ends, all of them are on disk."""
    if processes.count > 1:
        share = (processes.rank, processes.count)
        training_examples.encode_share(said, encoders, plan, recipe.data, cache, share)
        processes.wait()


def spread(
    subject: Subject,
    trained: dict[str, nn.Parameter],
    recipe: Recipe,
    processes: Processes,
    dtype: torch.dtype,
) -> dict[str, nn.Parameter]:
    """Put the network where it is trained, whole or a share of it; returns what is trained as it is then."""
    if recipe.machine.sharing == "weights" and processes.count > 1:
        return sharding.shard(subject, trained, processes.device, dtype)
    host.place_copy(subject.network, processes.device)
    for parameter in trained.values():
        parameter.data = parameter.data.to(processes.device)
    return trained


def check_weights(trained: dict[str, nn.Parameter], count: int, processes: Processes) -> None:
    """ValueError unless all processes begin with the same weights and as many clips."""
    total = sum(parameter.detach().double().sum().item() for parameter in trained.values())
    agree(processes, "the weights or the clips they begin with", total, count)


def go_on(training: Training, earlier: state.State | None, folder: Path) -> None:
    """Take over an earlier run's state; ValueError unless all processes find the same."""
    step = -1 if earlier is None else earlier.step
    agree(training.processes, f"the state that they find in {folder}", step)
    if earlier is not None:
        training.go_on(earlier)
