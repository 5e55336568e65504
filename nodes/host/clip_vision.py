"""A CLIP vision encoder of any size as the host's CLIP_VISION, and its embedding of prepared pixels.

The host's own `encode_image` rounds pictures to 8 bit and resizes in its own way; SVD was trained on neither.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ...modules.encoders.clip_vision import CLIPVisionConfig
from . import compat
from .backend import Check, unchecked
from .progress import check_interrupted

AT_ONCE = 8  # pictures embedded together: clips may have one per frame
KIND = "clip_vision_model"


@dataclass(frozen=True)
class VisionRecipe:
    """Sizes and weights (HF names) of a CLIP vision encoder, and what to call it in errors."""

    sizes: CLIPVisionConfig
    open_weights: Callable[[], dict[str, Tensor]]
    name: str
    check: Check = unchecked
    # what the host saves beside the weights
    notes: Mapping[str, Tensor] = field(default_factory=dict)


class CheckedVision(comfy.clip_vision.ClipVisionModel):
    """The host's CLIP_VISION; asks before every use whether the weights still are those that were loaded."""

    def __init__(self, config: str, recipe: VisionRecipe):
        super().__init__(config)
        self.check, self.notes = recipe.check, recipe.notes

    def get_sd(self) -> dict[str, Tensor]:
        """What the host saves, with what no shape of it tells."""
        return {**super().get_sd(), **self.notes}

    def encode_image(self, *args: Any, **kwargs: Any) -> Any:
        self.check()
        return super().encode_image(*args, **kwargs)


def host_config(sizes: CLIPVisionConfig) -> dict[str, Any]:
    """The host's configuration (comfy/clip_vision_config_h.json) at the given sizes.

    OpenCLIP's encoders, SVD's among them, use the exact GELU; the quick one of OpenAI's CLIP differs from it.
    """
    return {
        "model_type": KIND,
        "hidden_act": "gelu",
        "hidden_size": sizes.hidden_size,
        "image_size": sizes.image_size,
        "intermediate_size": sizes.intermediate,
        "layer_norm_eps": 1e-05,
        "num_attention_heads": sizes.num_heads,
        "num_channels": 3,
        "num_hidden_layers": sizes.num_layers,
        "patch_size": sizes.patch,
        "projection_dim": sizes.projection,
    }


def load_clip_vision(recipe: VisionRecipe) -> comfy.clip_vision.ClipVisionModel:
    """A CLIP_VISION for the host's nodes and ours; ValueError names weights that are missing or too many.

    Weights stay as stored, memory-mapped, and are cast at use: the host would round them to fp16 first.
    """
    clip_vision = _empty_model(recipe)
    missing, unexpected = clip_vision.model.load_state_dict(recipe.open_weights(), strict=False, assign=True)
    for keys, fault in ((missing, "lacks"), (unexpected, "has unknown")):
        if keys:
            raise ValueError(
                f"The image encoder {recipe.name} {fault} weights, {len(keys)} of them, the first: "
                f"{', '.join(keys[:5])}. Use the image encoder that the checkpoint was published with."
            )
    clip_vision.patcher.cached_patcher_init = (_load_patcher, (recipe,))
    return clip_vision


def _empty_model(recipe: VisionRecipe) -> CheckedVision:
    """The host's model at these sizes, through a file: 0.16.3 takes the configuration in no other way."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip_vision.json"
        path.write_text(json.dumps(host_config(recipe.sizes)), encoding="utf-8")
        return CheckedVision(str(path), recipe)


def _load_patcher(recipe: VisionRecipe, disable_dynamic: bool = False) -> Any:
    patcher = load_clip_vision(recipe).patcher
    return patcher.clone(disable_dynamic=True) if disable_dynamic and patcher.is_dynamic() else patcher


def input_size(clip_vision: Any) -> int:
    """Pixels on a side that a CLIP_VISION sees; ValueError for encoders without CLIP's projected token."""
    config = getattr(clip_vision, "config", {})
    kind = getattr(clip_vision, "model_type", type(clip_vision).__name__)
    if kind != KIND or "projection_dim" not in config:
        raise ValueError(
            f"SVD needs a CLIP vision encoder with a projection: got {kind}. Connect the CLIP_VISION output "
            "of the loader that the SVD model comes from."
        )
    return clip_vision.image_size


def embed_pixels(clip_vision: Any, pixels_bchw: Tensor) -> Tensor:
    """Projected tokens (b, 1, d) of normalised pixels (b, 3, size, size), one per picture.

    Works on every CLIP_VISION of the host that has a projection; the others raise ValueError.
    """
    input_size(clip_vision)
    if isinstance(clip_vision, CheckedVision):
        clip_vision.check()
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    tokens_bd = [_embed(clip_vision, pixels) for pixels in pixels_bchw.split(AT_ONCE)]
    return torch.cat(tokens_bd)[:, None]


def _embed(clip_vision: Any, pixels_bchw: Tensor) -> Tensor:
    check_interrupted()
    pixels = pixels_bchw.to(clip_vision.load_device, torch.float32)
    _, _, tokens_bd, _ = clip_vision.model(pixel_values=pixels, intermediate_output=-2)
    return tokens_bd.to(comfy.model_management.intermediate_device(), compat.intermediate_dtype())
