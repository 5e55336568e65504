"""Layers of a MODEL replaced by others, through the host's object patches: the MODEL itself stays as it is."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...modules.families.family import Part
from . import compat
from .backend import Check, attend
from .diffusion import checking

Fill = Callable[[nn.Module, torch.dtype], None]
# Frames, latent height, latent width; ValueError when such a clip does not fit.
CheckClip = Callable[[int, int, int], None]

GUARD = "kinetograph_clip_check"


@dataclass(frozen=True)
class Layers:
    """Layers that take the place of some of a MODEL's."""

    part: Part
    config: Any
    fill: Fill
    check: Check
    notes: Mapping[str, Tensor]  # what the host saves beside the weights


def swap_layers(model: Any, layers: Layers, check_clip: CheckClip) -> Any:
    """A clone of a MODEL of this pack with other layers in the places that the part's module names.

    The module is built with the network's own layer classes and dtype, on the device where the host keeps
    models that wait. Children keep their names, so LoRAs of the MODEL reach the new layers. `check_clip` is
    asked before anything is sampled.
    """
    branches = _build(model.model.diffusion_model, layers)
    clone = model.clone()
    for place, branch in branches.items():
        for name, layer in branch.named_children():
            clone.add_object_patch(f"diffusion_model.{place}.{name}", layer)
    clone.size = model.model_size() + _added_bytes(model.model.diffusion_model, branches)
    # the host compares it to see whether a loaded clone serves this one too
    clone.patches_uuid = uuid.uuid4()
    clone.add_object_patch("notes", {**model.model.notes, **layers.notes})
    key = f"kinetograph_{layers.part.kind}_weights_check"
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, checking(layers.check))
    clone.add_wrapper_with_key(
        WrappersMP.OUTER_SAMPLE, f"kinetograph_{layers.part.kind}_weights", _own_weights
    )
    guard_clips(clone, check_clip)
    return clone


def guard_clips(model: Any, check_clip: CheckClip) -> None:
    """Have a MODEL ask `check_clip` before anything is sampled."""
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, GUARD)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, GUARD, _checking(check_clip))


@torch.inference_mode(False)
def _build(network: Any, layers: Layers) -> Any:
    factory = {"dtype": network.dtype, "device": "meta"}
    branches = layers.part.build(layers.config, ops=network.ops, attention=attend, **factory)
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


def _checking(check: CheckClip) -> Callable[..., Tensor]:
    """An OUTER_SAMPLE wrapper that looks at the clip first. Context windows cut it, so they are asked instead."""

    def wrapper(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider = executor.class_obj
        windows = guider.model_options.get("context_handler")
        check(_frames(guider.conds, noise) if windows is None else windows.context_length, *noise.shape[-2:])
        return executor(noise, *args, **kwargs)

    return wrapper


def _frames(conds: dict[str, Any], noise: Tensor) -> int:
    """Frames of one clip, as the conditioning tells; all frames on the batch axis where it does not."""
    told = [cond["num_frames"] for cond in conds.get("positive", ()) if "num_frames" in cond]
    return told[0] if told else noise.shape[0]
