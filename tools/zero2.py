"""DeepSpeed's ZeRO-2 under the trainer's loop: gradients and what the optimizer remembers are shared out.

DeepSpeed lays the weights side by side in one row of numbers and gives each process an equal piece of it to update, in
fp32, with gradients that come as their mean. Its own checkpoints are pickles and are not used.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any

import torch
from accelerate import DeepSpeedPlugin
from torch import Tensor, nn

from ..modules.training import optimizers, sharding
from ..modules.training.processes import Processes, agree
from ..modules.training.recipe import Recipe, Steps

CONFIGURATION = "configs/training/deepspeed_zero2.yaml"
# numbers in one message: DeepSpeed keeps as many beside the gradients
MESSAGE = 2**26
# the piece of this process, among what its optimizer remembers
PIECE = "piece"


def check_wish() -> None:
    """ValueError unless accelerate was told to use DeepSpeed as this trainer does, and the package is there."""
    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise ValueError(
            f"A DeepSpeed file (deepspeed_config_file) is not read: launch with {CONFIGURATION}, or one like it."
        )
    told = DeepSpeedPlugin()
    kinds = {
        "optimizer": told.offload_optimizer_device,
        "parameters": told.offload_param_device,
    }
    away = [f"{kind} on {device}" for kind, device in kinds.items() if device not in (None, "none")]
    if told.zero_stage != 2 or away:
        raise ValueError(
            f"accelerate was set to DeepSpeed's ZeRO stage {', '.join([str(told.zero_stage), *away])}. This trainer takes "
            f"stage 2 without offload: launch with {CONFIGURATION}. To share weights, too, launch plain processes "
            '(--multi_gpu) and set machine.sharing to "weights".'
        )
    if find_spec("deepspeed") is None:
        raise ValueError(
            'accelerate was set to DeepSpeed, and the package deepspeed is not there. Install it with "pip install deepspeed", '
            "or launch plain processes (--multi_gpu)."
        )


class ZeRO2:
    """The engine of a training whose processes accelerate started with DeepSpeed."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def check(self, recipe: Recipe, dtype: torch.dtype) -> None:
        """ValueError for what it cannot do."""
        if recipe.machine.sharing == "weights":
            raise ValueError(
                'machine.sharing is "weights", and accelerate was set to DeepSpeed: launch plain processes (--multi_gpu), or '
                'set machine.sharing to "gradients".'
            )
        sharding.check(recipe, dtype, "DeepSpeed's ZeRO-2", "launch without DeepSpeed")

    def updates(self, trained: Mapping[str, nn.Parameter], steps: Steps) -> "PieceUpdates":
        """The updates of a training."""
        return PieceUpdates(trained, steps, self.processes)


class PieceUpdates:
    """Updates by DeepSpeed, which begins with the first loss: that one tells which weights have a gradient at all.

    DeepSpeed would take the others' for zero, and let them decay.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], steps: Steps, processes: Processes) -> None:
        self.trained, self.steps, self.processes = trained, steps, processes
        # those that losses depend on
        self.parameters: dict[str, nn.Parameter] = {}
        self._engine: Any = None
        # of an earlier run, until there is an engine
        self._earlier: dict[str, Tensor] = {}

    @property
    def is_whole(self) -> bool:
        return self.processes.count == 1

    def backward(self, loss: Callable[[], Tensor], last: bool) -> Tensor:
        """See the protocol. ValueError where the loss depends on other weights than the first one did."""
        if self._engine is None:
            self._begin(loss)
        # the last one makes of the sums what `apply` takes
        self._engine.set_gradient_accumulation_boundary(last)
        value = self._engine(loss)
        found = leaves_of(value, self.trained)
        if found.keys() != self.parameters.keys():
            raise ValueError(
                f"A clip's loss depends on {len(found)} of the weights, that of the first on {len(self.parameters)}. ZeRO-2 "
                "moves all of them together: train on clips of one kind, or launch without DeepSpeed."
            )
        self._engine.backward(value)
        return value.detach()

    def apply(self, lr: float, limit: Callable[[float], float]) -> float:
        """See the protocol. ArithmeticError for gradients that are no numbers: DeepSpeed would pass over the update."""
        optimizer = self._engine.optimizer
        norm = float(optimizer.scaled_global_norm())
        if norm < 0 or not isfinite(norm):
            self.drop()
            raise ArithmeticError(
                "The gradients are no numbers: nothing was learned from them. Lower lr, or choose precision fp32."
            )
        optimizer.clip_grad = limit(norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        return norm

    def drop(self) -> None:
        self._engine.optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers, by names of weights as of one process; the first process alone holds it."""
        if self._engine is None:
            return dict(self._earlier)
        piece, kept = self._piece, {}
        for key, value in optimizers.state_tensors(self._engine.optimizer, {PIECE: piece}).items():
            owner, _, field = key.rpartition(".")
            if owner != PIECE:
                kept[key] = value
                continue
            for name, parameter in self.parameters.items():
                whole = self._whole(parameter, field) if value.shape == piece.shape else value.clone()
                if self.processes.rank == 0:
                    kept[f"{name}.{field}"] = whole.cpu()
        return kept

    def scale(self) -> dict[str, Any]:
        return {}

    def go_on(self, tensors: Mapping[str, Tensor], scale: Mapping[str, Any]) -> None:
        self._earlier = dict(tensors)
        if self._engine is not None:
            self._take_over()

    @property
    def _piece(self) -> Tensor:
        """The weights (n,) that this process updates, in fp32."""
        return self._engine.optimizer.param_groups[0]["params"][0]

    def _whole(self, parameter: nn.Parameter, field: str) -> Tensor:
        return import_module("deepspeed.utils").safe_get_full_optimizer_state(parameter, field)

    def _begin(self, loss: Callable[[], Tensor]) -> None:
        """Hand DeepSpeed the weights that a loss depends on. ValueError where processes differ in them."""
        self.parameters = leaves_of(loss(), self.trained)
        places = [number for number, name in enumerate(self.trained) if name in self.parameters]
        agree(self.processes, "the weights that their first clip depends on", len(places), sum(places))
        if self.processes.device.type == "cpu":
            # it would take a GPU that is there
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        optimizer = optimizers.build(self.parameters, self.steps)
        count = sum(parameter.numel() for parameter in self.parameters.values())
        message = min(MESSAGE, count + count % 2)
        self._engine, *_ = import_module("deepspeed").initialize(
            model=Weights(self.parameters.values()),
            optimizer=optimizer,
            config={
                # of clips it is told nothing: the loop counts them
                "train_micro_batch_size_per_gpu": 1,
                "zero_optimization": {
                    "stage": 2,
                    "reduce_bucket_size": message,
                    "allgather_bucket_size": message,
                },
                # Lion: its arithmetic is that of single numbers, as AdamW's is
                "zero_allow_untested_optimizer": True,
            },
        )
        if self._earlier:
            self._take_over()

    def _take_over(self) -> None:
        """Cut what an earlier run remembers into pieces. ValueError where it is not of these weights."""
        optimizer, piece = self._engine.optimizer, self._piece
        moments, rest = split_state(self._earlier, self.parameters)
        for field, values in moments.items():
            # DeepSpeed knows what of each weight lies where in its piece
            piece.detach().zero_()
            for name, value in values.items():
                import_module("deepspeed.utils").safe_set_full_fp32_param(self.parameters[name], value)
            rest[f"{PIECE}.{field}"] = piece.detach().clone()
        optimizer.refresh_fp32_params()
        optimizers.load_state_tensors(optimizer, {PIECE: piece}, rest)
        self._earlier = {}


class Weights(nn.Module):
    """What DeepSpeed takes for the network: the weights that it is to move, and a forward pass that is another's."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.parameters_of_others = nn.ParameterList(parameters)

    def forward(self, loss: Callable[[], Tensor]) -> Tensor:
        return loss()


def leaves_of(loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of the parameters that a loss depends on, in their order: its graph is walked, nothing is computed."""
    ahead, seen = [loss.grad_fn], set()
    leaves: set[int] = set()
    while ahead:
        step = ahead.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if hasattr(step, "variable"):
            leaves.add(id(step.variable))
        ahead += [before for before, _ in step.next_functions]
    return {name: parameter for name, parameter in parameters.items() if id(parameter) in leaves}


def split_state(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """What an optimizer remembers of weights (by field and name), and the rest as that of one piece.

    ValueError where it is not of these weights, or where they are not equally many updates old: a piece has one age.
    """
    fields: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for key, value in tensors.items():
        name, _, field = key.rpartition(".")
        if key.startswith((optimizers.CLASS, optimizers.GROUP)):
            rest[key] = value
        else:
            fields.setdefault(field, {})[name] = value
    moments = {}
    for field, values in fields.items():
        if values.keys() != parameters.keys():
            raise ValueError(
                f"The state holds {field} of {len(values)} weights, and clips reach {len(parameters)}: go on without "
                "DeepSpeed, or begin anew."
            )
        if all(value.shape == parameters[name].shape for name, value in values.items()):
            moments[field] = values
            continue
        first, *others = values.values()
        if not all(torch.equal(first, other) for other in others):
            raise ValueError(
                f"The weights of the state differ in {field}, and those of ZeRO-2 do not: go on without DeepSpeed."
            )
        rest[f"{PIECE}.{field}"] = first
    return moments, rest
