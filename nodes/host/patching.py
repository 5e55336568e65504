"""Layers of a MODEL replaced by others, through the host's object patches: the MODEL itself stays as it is."""

import uuid
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...modules.families.family import Part
from .backend import attend

Fill = Callable[[nn.Module, torch.dtype], None]
CheckClip = Callable[
    [int, int, int], None
]  # frames, latent height, latent width: ValueError when it does not fit


def swap_layers(model: Any, part: Part, config: Any, fill: Fill, check: CheckClip) -> Any:
    """A clone of a MODEL of this pack with the layers of `part` in the places that its module names.

    The module is built with the network's own layer classes and dtype, on the device where the host keeps
    models that wait. Children keep their names, so LoRAs of the MODEL reach the new layers. `check` is asked
    before anything is sampled.
    """
    layers = _build(model.model.diffusion_model, part, config, fill)
    clone = model.clone()
    for place, branch in layers.items():
        for name, layer in branch.named_children():
            clone.add_object_patch(f"diffusion_model.{place}.{name}", layer)
    clone.size = model.model_size() + _added_bytes(model.model.diffusion_model, layers)
    clone.patches_uuid = (
        uuid.uuid4()
    )  # the host compares it to see whether a loaded clone serves this one too
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"kinetograph_{part.kind}", _checking(check))
    return clone


@torch.inference_mode(False)
def _build(network: Any, part: Part, config: Any, fill: Fill) -> Any:
    layers = part.build(config, ops=network.ops, attention=attend, dtype=network.dtype, device="meta")
    fill(layers, network.dtype)
    comfy.model_management.archive_model_dtypes(layers)
    return layers.eval()


def _added_bytes(network: nn.Module, layers: nn.Module) -> int:
    """What the layers weigh beyond those they replace."""
    replaced = network.state_dict()
    return sum(value.nbytes for key, value in layers.state_dict().items() if key not in replaced)


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
