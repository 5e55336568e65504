"""Weights of which each process holds a share: FSDP2, as `torch.distributed.fsdp.fully_shard` does it.

A block's weights come together while it computes, and are let go behind it; gradients come back as their mean, a share
to each process. What a share is of is told by the tensor itself (DTensor), so the loop's arithmetic stays as it is.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .recipe import Recipe
from .subject import Subject

# methods of blocks that a network calls beside their forward
BESIDE = ("rows",)
# those whose arithmetic is the same for a share of a weight as for the whole
OPTIMIZERS = ("adamw", "lion")


class Shaped(Protocol):
    """Encoded clips, as far as their shapes go."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Any: ...


def shard(
    subject: Subject, trained: Mapping[str, nn.Parameter], device: torch.device, dtype: torch.dtype
) -> dict[str, nn.Parameter]:
    """Leave each process a share of the network's weights, on its device; returns what is trained as it is then.

    All processes call it, on equal networks. Blocks are shared one by one, all else together: one block's weights are
    whole at a time. Halves of a LoRA are small, and stay whole. `dtype` is the one that products are computed in;
    gradients are summed in fp32.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (get_world_size(),))
    policy = MixedPrecisionPolicy()
    if dtype != torch.float32:
        # timesteps and sizes among the inputs are not rounded
        policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for block in subject.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
        for name in BESIDE:
            if hasattr(block, name):
                register_fsdp_forward_method(block, name)
    # its own would stay whole behind a sampled clip, and so be those of the running mean in the next step
    fully_shard(subject.network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    own = dict(subject.network.named_parameters())
    for name in trained.keys() - own.keys():
        trained[name].data = trained[name].data.to(device)
    return {name: own.get(name, parameter) for name, parameter in trained.items()}


def is_share(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Tensors put together from all processes, which all call it; a share's on the CPU, and only where one keeps them."""
    together = {}
    for name, tensor in tensors.items():
        if not is_share(tensor):
            together[name] = tensor
            continue
        full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
        if keep:
            together[name] = full.cpu()
    return together


def shares(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Whole tensors as those of a state, each cut as the parameter is that it belongs to.

    That is the parameter whose name its own is, or begins with, if they have one shape.
    """
    cut = {}
    for key, tensor in tensors.items():
        parameter = parameters.get(key, parameters.get(key.rpartition(".")[0]))
        is_cut = parameter is not None and is_share(parameter) and parameter.shape == tensor.shape
        cut[key] = _share(tensor, parameter) if is_cut else tensor
    return cut


def _share(tensor: Tensor, parameter: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh
    # each process has read all of it: nothing is sent
    return distribute_tensor(tensor.to(parameter.device), mesh, parameter.placements, src_data_rank=None)


def check(
    recipe: Recipe,
    dtype: torch.dtype,
    way: str = 'machine.sharing "weights"',
    instead: str = 'share "gradients"',
) -> None:
    """ValueError for what processes cannot do of which each updates a share of the weights, by `way`."""
    optimizer = recipe.steps.optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(
            f'"{optimizer}" needs whole weights, and {way} gives each process a share to update: choose '
            f"{' or '.join(OPTIMIZERS)}, or {instead}."
        )
    if dtype == torch.float16:
        raise ValueError(f"fp16 with {way} is not possible: choose bf16 or fp32.")


def check_calls(examples: Shaped, at_once: int) -> None:
    """ValueError where processes would call the network unequally often: they come together in every call of it."""
    if at_once == 1:
        return
    kinds = {examples[number].shapes for number in range(len(examples))}
    if len(kinds) > 1:
        raise ValueError(
            f"Processes that share weights or updates call the network equally often, but the clips have {len(kinds)} different shapes "
            f"and up to {at_once} go through at once: set steps.at_once to 1."
        )
