"""The host's own MODELs for our nodes: the same tensors in our network, without a copy."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...modules.families.family import EDMSchedule, Family
from . import diffusion


class Recognised(Protocol):
    """What `modules/adoption.py` finds out about a state dict."""

    @property
    def complete(self) -> bool: ...
    @property
    def family(self) -> str: ...
    @property
    def config(self) -> Any: ...
    @property
    def renames(self) -> Mapping[str, str | None]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def dtype(self) -> str: ...


Recognise = Callable[[Mapping[str, Tensor]], Recognised]


def own_model(model: Any, node: str, families: Mapping[str, Family], recognise: Recognise) -> Any:
    """The MODEL itself when a loader of this pack made it, else ours around the tensors of the host's own.

    Its LoRA patches and options come along. ValueError names the loader to use when the MODEL is of no family
    that can be taken over, or when another node has replaced parts of it.
    """
    if getattr(model.model, "recipe", None) is not None:
        return model
    tensors = _unpatched(model)
    found = recognise(tensors)
    family = families.get(found.family)
    if family is None or not found.complete or not isinstance(family.schedule(found.config), EDMSchedule):
        raise ValueError(
            f"{node} takes video models: got {type(model.model).__name__}. Load the checkpoint with "
            "SVD Loader or CogVideoX Loader, or sample it with KSampler."
        )
    changed = [key for key in model.object_patches if not key.startswith("model_sampling")]
    if changed or model.injections or model.wrappers:
        raise ValueError(
            f"{node} cannot take over a {type(model.model).__name__} that another node has rebuilt"
            f"{f' ({changed[0]})' if changed else ''}: load the checkpoint with SVD Loader instead."
        )
    return _adopted(model, tensors, found, family)


def family_of(model: Any, recognise: Recognise) -> str:
    """Id of the family of a MODEL, ours or the host's own; "unknown" or the like for any other."""
    recipe = getattr(model.model, "recipe", None)
    return recipe.family.id if recipe is not None else recognise(_unpatched(model)).family


def _unpatched(model: Any) -> dict[str, Tensor]:
    """The network's tensors as loaded: where a LoRA is applied right now, the host keeps the original."""
    prefix = "diffusion_model."
    kept = {key: entry.weight for key, entry in getattr(model, "backup", {}).items()}
    weights = model.model.diffusion_model.state_dict()
    return {key: kept.get(prefix + key, tensor) for key, tensor in weights.items()}


def _adopted(model: Any, tensors: dict[str, Tensor], found: Recognised, family: Family) -> Any:
    def fill(module: nn.Module, dtype: torch.dtype) -> None:
        ours = {new: tensors[key] for key, new in found.renames.items() if new is not None}
        module.load_state_dict(ours, strict=True, assign=True)
        module.requires_grad_(False)

    dtype = model.model.get_dtype()
    recipe = diffusion.ModelRecipe(
        family=family,
        part=family.parts["diffusion_model"],
        config=found.config,
        fill=fill,
        weight_dtype=dtype,
        parameters=found.parameters,
        dtype=dtype,
    )
    taken = diffusion.load_model(recipe)
    taken.patches = {key: list(patches) for key, patches in model.patches.items()}
    taken.patches_uuid = model.patches_uuid
    taken.model_options = model.clone().model_options
    if "model_sampling" in model.object_patches:
        taken.add_object_patch("model_sampling", model.object_patches["model_sampling"])
    return taken
