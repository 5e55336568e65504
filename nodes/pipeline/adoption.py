"""The host's own MODEL in our network, with the same tensors and no copy: for layers that only our network can take."""

from typing import Any

import torch
from torch import Tensor, nn

from ...modules.families.family import Family
from ...modules.weights.checkpoint import recognise
from ...modules.weights.detect import Finding
from ...modules.weights.load import rename
from ..host import diffusion


def own_model(model: Any, node: str, family: Family) -> Any:
    """The MODEL itself when a loader of this pack made it, else ours around the tensors of the host's own.

    Its LoRA patches and options come along. ValueError names the loader to use when the MODEL is not of this family,
    or when another node has replaced parts of it.
    """
    loader = family.parts["diffusion_model"].node.title
    recipe = getattr(model.model, "recipe", None)
    if recipe is not None and recipe.family.id == family.id:
        return model
    tensors = _unpatched(model)
    finding = recognise(tensors, (family,))
    if recipe is not None or not finding.complete:
        name = type(model.model).__name__ if recipe is None else recipe.label
        why = f" ({finding.problem})" if recipe is None and finding.problem else ""
        raise ValueError(f"{node} is for {family.label} models: got {name}{why}. Load one with {loader}.")
    changed = [key for key in model.object_patches if not key.startswith("model_sampling")]
    if changed or model.injections or model.wrappers:
        raise ValueError(
            f"{node} cannot take over a {type(model.model).__name__} that another node has rebuilt"
            f"{f' ({changed[0]})' if changed else ''}: load the checkpoint with {loader} instead."
        )
    return _adopted(model, tensors, finding, family)


def _unpatched(model: Any) -> dict[str, Tensor]:
    """The network's tensors as loaded: where a LoRA is applied right now, the host keeps the original."""
    prefix = "diffusion_model."
    kept = {key: entry.weight for key, entry in getattr(model, "backup", {}).items()}
    weights = model.model.diffusion_model.state_dict()
    return {key: kept.get(prefix + key, tensor) for key, tensor in weights.items()}


def _adopted(model: Any, tensors: dict[str, Tensor], finding: Finding, family: Family) -> Any:
    def fill(module: nn.Module, dtype: torch.dtype) -> None:
        module.load_state_dict(rename(tensors, finding.renames), strict=True, assign=True)
        module.requires_grad_(False)

    dtype = model.model.get_dtype()
    recipe = diffusion.ModelRecipe(
        family=family,
        part=family.parts["diffusion_model"],
        config=finding.config,
        fill=fill,
        weight_dtype=dtype,
        parameters=finding.parameters,
        dtype=dtype,
    )
    adopted = diffusion.load_model(recipe)
    adopted.patches = {key: list(patches) for key, patches in model.patches.items()}
    adopted.patches_uuid = model.patches_uuid
    adopted.model_options = model.clone().model_options
    if "model_sampling" in model.object_patches:
        adopted.add_object_patch("model_sampling", model.object_patches["model_sampling"])
    return adopted
