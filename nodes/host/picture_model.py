"""The host's own SD1.5 and TAESD at the sizes of a file, as its Load Checkpoint builds them at full width."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ...modules.families.family import Shapes
from .backend import new_patcher

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class PictureRecipe:
    """Where the weights of a UNet come from, in its own names; asked once more for a deep clone."""

    open_unet: Callable[[], Weights]


def unet_settings(shapes: Shapes) -> dict[str, Any]:
    """What the host reads off a UNet's shapes; ValueError where it finds no SD1.5 in them."""
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    try:
        settings = comfy.model_detection.detect_unet_config(empty, "")
    except (LookupError, TypeError, ValueError, RuntimeError):
        settings = None
    free = ("context_dim", "model_channels")
    fixed = {key: value for key, value in comfy.supported_models.SD15.unet_config.items() if key not in free}
    if settings is None or any(settings.get(key) != value for key, value in fixed.items()):
        raise ValueError("its UNet is none of SD1.5's kind.")
    return settings


def unet_shapes(shapes: Shapes) -> Shapes:
    """The shapes that the host's UNet has at the sizes of a file; ValueError where there is no such UNet."""
    config = comfy.supported_models.SD15(unet_settings(shapes))
    try:
        unet = UNetModel(**config.unet_config, device=torch.device("meta"))
    except (ArithmeticError, LookupError, TypeError, RuntimeError, ValueError):
        raise ValueError("the host builds no UNet of its sizes.") from None
    return _shapes_of(unet.state_dict())


def vae_shapes() -> Shapes:
    """The shapes of the host's TAESD."""
    with torch.device("meta"):
        return _shapes_of(comfy.taesd.taesd.TAESD().state_dict())


def _shapes_of(weights: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in weights.items()}


@torch.inference_mode(False)
def load_model(recipe: PictureRecipe, disable_dynamic: bool = False) -> Any:
    """The host's SD1.5 MODEL; the host calls it again with `disable_dynamic` for deep clones."""
    weights = recipe.open_unet()
    device = comfy.model_management.get_torch_device()
    config = comfy.supported_models.SD15(unet_settings(_shapes_of(weights)))
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model(weights, "", device=offload)
    patcher = new_patcher(model, device, offload, disable_dynamic)
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_model, (recipe,))
    return patcher


@torch.inference_mode(False)
def load_vae(open_weights: Callable[[], Weights]) -> comfy.sd.VAE:
    """The host's VAE around weights that it knows by their names, such as Stable Diffusion's or TAESD's."""
    vae = comfy.sd.VAE(sd=open_weights())
    vae.patcher.cached_patcher_init = (_load_vae_patcher, (open_weights,))
    return vae


def _load_vae_patcher(open_weights: Callable[[], Weights], disable_dynamic: bool = False) -> Any:
    patcher = load_vae(open_weights).patcher
    return patcher.clone(disable_dynamic=True) if disable_dynamic and patcher.is_dynamic() else patcher


def load_checkpoint(path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a checkpoint as the host's Load Checkpoint opens it."""
    opened = comfy.sd.load_checkpoint_guess_config(
        str(path),
        output_vae=True,
        output_clip=True,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
    )
    return opened[0], opened[1], opened[2]
