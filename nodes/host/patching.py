"""Layers of a MODEL replaced by others, through the host's object patches: the MODEL itself stays as it is."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...modules.families.family import AddOn
from . import compat
from .backend import Check, attend
from .diffusion import Fill
from .guards import checking, guard_clips


@dataclass(frozen=True)
class Layers:
    """Layers that take the place of some of a MODEL's."""

    add_on: AddOn
    # of the network that they go into
    config: Any
    fill: Fill
    check: Check
    # what the host saves beside the weights
    notes: Mapping[str, Tensor]


def swap_layers(model: Any, layers: Layers) -> Any:
    """A clone of a MODEL of this pack with other layers in the places that the add-on names.

    The module is built with the network's own layer classes and dtype, on the device where the host keeps
    models that wait. Children keep their names, so LoRAs of the MODEL reach the new layers. The
    add-on is asked about the clip before anything is sampled.
    """
    network = model.model.diffusion_model
    branches = _build(network, layers)
    clone = model.clone()
    for place, layer in _places(branches, layers):
        clone.add_object_patch(place, layer)
    clone.size = model.model_size() + _added_bytes(network, branches)
    # the host compares it to see whether a loaded clone serves this one too
    clone.patches_uuid = uuid.uuid4()
    clone.add_object_patch("notes", {**model.model.notes, **layers.notes})
    key = f"kinetograph_{layers.add_on.part.kind}_weights"
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"{key}_check", checking(layers.check))
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, _own_weights)
    compat.on_split(clone, key, EachDevice(layers, branches).give)
    guard_clips(clone, layers.add_on.check_clip)
    return clone


def layer_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the weights of layers that were put into a MODEL's network, by their places there."""
    prefix = "diffusion_model."
    layers = {
        place.removeprefix(prefix): layer
        for place, layer in model.object_patches.items()
        if place.startswith(prefix) and isinstance(layer, nn.Module)
    }
    return {
        f"{place}.{key}": tuple(value.shape)
        for place, layer in layers.items()
        for key, value in layer.state_dict().items()
    }


class EachDevice:
    """The same layers once for every device: the host hands one device's to all copies of a MODEL."""

    def __init__(self, layers: Layers, branches: nn.Module):
        self.layers, self.branches = layers, branches
        self.elsewhere: dict[torch.device, nn.Module] = {}

    def give(self, model: Any, copy: Any) -> None:
        """Put layers of its own into a copy, where those of `model` are still in place."""
        if copy.load_device not in self.elsewhere:
            self.elsewhere[copy.load_device] = _build(copy.model.diffusion_model, self.layers)
        there = _places(self.elsewhere[copy.load_device], self.layers)
        for (place, ours), (_, theirs) in zip(_places(self.branches, self.layers), there, strict=True):
            if copy.object_patches.get(place) is ours:
                copy.add_object_patch(place, theirs)


def _places(branches: nn.Module, layers: Layers) -> list[tuple[str, nn.Module]]:
    """The host's name of each place, and what goes there."""
    return [
        (f"diffusion_model.{place}.{name}", layer)
        for place, branch in layers.add_on.insert(branches)
        for name, layer in branch.named_children()
    ]


@torch.inference_mode(False)
def _build(network: Any, layers: Layers) -> nn.Module:
    factory = {"dtype": network.dtype, "device": "meta"}
    branches = layers.add_on.part.build(layers.config, ops=network.ops, attention=attend, **factory)
    layers.fill(branches, network.dtype)
    comfy.model_management.archive_model_dtypes(branches)
    return branches.eval()


def _added_bytes(network: nn.Module, layers: nn.Module) -> int:
    """What the layers weigh beyond those they replace."""
    replaced = network.state_dict()
    return sum(value.nbytes for key, value in layers.state_dict().items() if key not in replaced)


def _own_weights(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """An OUTER_SAMPLE wrapper: no weight of a layer is put into the one that takes its place.

    With dynamic VRAM the host remembers small weights by name while copies of them are on the device, and puts
    them back after it has swapped layers. So they go back before it swaps, to this MODEL's layers and from them.
    """
    patcher = executor.class_obj.model_patcher
    compat.put_back_weights(patcher)
    try:
        return executor(*args, **kwargs)
    finally:
        compat.put_back_weights(patcher)
