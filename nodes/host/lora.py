"""LoRA patches of the host: made from tensors, put on clones of a MODEL or a CLIP by its own patcher."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import comfy.lora
import comfy.lora_convert
from comfy.weight_adapter.lora import LoRAAdapter
from torch import Tensor, nn

# the host's key of a weight, alone or with the part of it that is meant -> what changes it
Patches = dict[Any, Any]


@dataclass(frozen=True)
class HostMatch:
    """What a LoRA changes in a MODEL, and in a CLIP, by the host's own table of names."""

    model: Patches
    clip: Patches
    # the file's keys that change nothing, or that do not fit
    unmatched: tuple[str, ...]


def patches_of(tensors: Mapping[str, Tensor], weights: Mapping[str, str]) -> Patches:
    """Patches from tensors in the host's naming; `weights` says which weight each name stands for."""
    return comfy.lora.load_lora(dict(tensors), dict(weights), log_missing=False)


def add(target: Any, patches: Patches, strength: float) -> Any:
    """A clone of a MODEL or a CLIP with patches; itself where there is nothing to add, or at strength 0.

    RuntimeError when the host took fewer than it was handed: it drops what it does not know.
    """
    if not patches or strength == 0:
        return target
    clone = target.clone()
    taken = {*clone.add_patches(patches, strength)}
    # The host looks into the network as it lies there: layers that this MODEL puts into it come with the first run.
    for key in _in_layers(clone).intersection(key for key in patches if key not in taken):
        clone.patches[key] = [*clone.patches.get(key, ()), (strength, patches[key], 1.0, None, None)]
        taken.add(key)
    if len(taken) != len(patches):
        lost = [str(key) for key in patches if key not in taken]
        raise RuntimeError(f"ComfyUI took {len(taken)} of {len(patches)} LoRA patches; not {lost[:5]}.")
    return clone


def _in_layers(target: Any) -> set[str]:
    """Keys of the weights of layers that a MODEL puts into its network; a CLIP has none."""
    layers = getattr(target, "object_patches", {}).items()
    return {
        f"{at}.{key}" for at, layer in layers if isinstance(layer, nn.Module) for key in layer.state_dict()
    }


def weights_of(clip: Any) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a CLIP's weights, in the host's naming."""
    return {key: tuple(value.shape) for key, value in clip.cond_stage_model.state_dict().items()}


def match(model: Any, clip: Any, tensors: Mapping[str, Tensor]) -> HostMatch:
    """A LoRA held against a MODEL and a CLIP of the host, by its own table of names."""
    tensors = comfy.lora_convert.convert_lora(dict(tensors))
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = comfy.lora.load_lora(tensors, keys, log_missing=False)
    fitting = _fitting(loaded, model.model.state_dict())
    text: Patches = {}
    if clip is not None:
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
        text = comfy.lora.load_lora(tensors, keys, log_missing=False)
        text = _fitting(text, clip.cond_stage_model.state_dict())
    used = _ids((*fitting.values(), *text.values()))
    # alpha comes as a number
    halves = {
        key.split(".lora_")[0].split(".lora.")[0] for key, tensor in tensors.items() if id(tensor) in used
    }
    left = [
        key
        for key, tensor in tensors.items()
        if id(tensor) not in used and not (key.endswith(".alpha") and key.removesuffix(".alpha") in halves)
    ]
    return HostMatch(fitting, text, tuple(left))


def _ids(patches: Iterable[Any]) -> set[int]:
    """Of the tensors that are in patches."""
    values = [patch.weights if isinstance(patch, LoRAAdapter) else patch[1] for patch in patches]
    return {id(value) for group in values for value in group if isinstance(value, Tensor)}


def _fitting(patches: Patches, weights: Mapping[str, Tensor]) -> Patches:
    """The patches that have the shapes of the weights: the host would only log the others and go on."""
    return {key: patch for key, patch in patches.items() if _fits(patch, _shape(key, weights))}


def _shape(key: Any, weights: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Of a weight, or of the rows of it that are meant."""
    name, *part = (key,) if isinstance(key, str) else key
    if name not in weights:
        return None
    shape = list(weights[name].shape)
    if part and part[0] is not None:
        axis, _, length = part[0]
        shape[axis] = length
    return tuple(shape)


def _fits(patch: Any, shape: tuple[int, ...] | None) -> bool:
    """Whether a plain low-rank pair, or a whole difference, is of a weight's shape. Other kinds are not known here."""
    if shape is None:
        return False
    if not isinstance(patch, LoRAAdapter):
        return isinstance(patch, tuple) and patch[0] == "diff" and tuple(patch[1][0].shape) == shape
    up, down, _, middle, scale, reshaped = patch.weights
    if middle is not None or scale is not None or reshaped is not None or up.ndim < 2 or down.ndim < 2:
        return False
    same = up.shape[1] == down.shape[0] and up.shape[2:].numel() == 1
    return same and up.shape[0] == shape[0] and down[0].numel() == prod(shape[1:])
