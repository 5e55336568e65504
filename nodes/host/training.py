"""Networks of the host as a training needs them: a copy of their own, with plain weights, and motion modules beside them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor, nn

from .injection import MIDDLE, res_norms

PREFIX = "diffusion_model."
# kernels of the host that compute no gradient
FORWARD_ONLY = ("attention_sage", "attention3_sage")


def check_attention() -> None:
    """ValueError where the attention that the user chose for the host has no gradient."""
    name = optimized_attention.__name__
    if name in FORWARD_ONLY:
        raise ValueError(
            f"ComfyUI was started with an attention that computes no gradients ({name}): start it without "
            "--use-sage-attention to train."
        )


def device() -> torch.device:
    """Where the host computes."""
    return comfy.model_management.get_torch_device()


def device_memory() -> int:
    """Bytes of memory where the host computes."""
    return comfy.model_management.get_total_memory(device())


def training_dtype(precision: str) -> torch.dtype:
    """What products are computed in. `auto`: bf16 on a GPU that has it, fp16 on one that has not, fp32 on a CPU."""
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in known:
        return known[precision]
    place = device()
    if place.type == "cpu":
        return torch.float32
    return torch.bfloat16 if comfy.model_management.should_use_bf16(place) else torch.float16


def free_memory() -> None:
    """Send the host's models off the device: the encoders have done their work."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def withheld(reason: str) -> Any:
    """An output that is none: whatever takes it ends in this sentence, and nothing happens where nobody does."""
    return ExecutionBlocker(reason)


@contextmanager
def gradients() -> Iterator[None]:
    """Nodes run in inference mode, in which nothing can be trained."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def weights_of(model: Any, patched: bool = True) -> dict[str, Tensor]:
    """The weights of a MODEL's network by its own names, with the LoRAs of the MODEL merged in."""
    kept = {key: entry.weight for key, entry in getattr(model, "backup", {}).items()}
    weights = {
        key: kept.get(PREFIX + key, tensor)
        for key, tensor in model.model.diffusion_model.state_dict().items()
    }
    return {**weights, **changed_weights(model, weights)} if patched else weights


def changed_weights(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that patches of a MODEL change, changed; in fp32."""
    changed = {}
    for key, patches in model.patches.items():
        name = str(key).removeprefix(PREFIX)
        if name in weights:
            changed[name] = patched(patches, weights[name], str(key))
    return changed


def patched(patches: Any, weight: Tensor, key: str) -> Tensor:
    """A weight with the patches of a patcher, in fp32."""
    return comfy.lora.calculate_weight(patches, weight.detach().clone().float(), key)


def place_copy(own: nn.Module, device: torch.device | str) -> nn.Module:
    """A network of a training's own on a device: no patcher of the host knows it, none moves it."""
    return own.to(device)


def copy_unet(model: Any, dtype: torch.dtype) -> nn.Module:
    """The host's UNet of pictures once more, built of torch's own layers, on the device, frozen."""
    settings = dict(model.model.model_config.unet_config)
    settings |= {"dtype": dtype, "operations": comfy.ops.disable_weight_init, "device": device()}
    settings.pop("disable_unet_model_creation", None)
    unet = UNetModel(**settings)
    unet.load_state_dict(weights_of(model), strict=False)
    return unet.requires_grad_(False)


class PictureNetwork(nn.Module):
    """The host's UNet with motion modules behind its blocks, for clips whose frames lie side by side."""

    def __init__(self, unet: nn.Module, motion: nn.Module | None = None, joint_norms: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.motion = motion
        self.frames = 1
        if motion is not None:
            for place, module in motion.items():  # type: ignore[operator]
                last_layer(unet.get_submodule(place), place == MIDDLE).register_forward_hook(
                    self._behind(module)
                )
        if joint_norms:
            self._join()

    def forward(
        self, x_nchw: Tensor, timestep_n: Tensor, context_nld: Tensor, frames: int, y: Tensor | None = None
    ) -> Tensor:
        """Epsilon of clips of `frames` frames; without motion modules each frame is a picture."""
        self.frames = frames
        return self.unet(x_nchw, timestep_n, context_nld, y=y, transformer_options={})

    def _behind(self, module: nn.Module) -> Any:
        def move(_: nn.Module, __: Any, x_nchw: Tensor) -> Tensor:
            return module(x_nchw, self.frames)

        return move

    def _join(self) -> None:
        """Have the UNet's norms see all frames of a clip, as v1 and v2 were trained."""

        def to_clips(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            return args[0].unflatten(0, (-1, self.frames)).transpose(1, 2)

        def to_frames(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            return out.transpose(1, 2).flatten(0, 1)

        for norm in res_norms(self.unet):
            norm.register_forward_pre_hook(to_clips)
            norm.register_forward_hook(to_frames)


def last_layer(block: nn.Module, middle: bool) -> nn.Module:
    """The layer of a UNet's block behind which a motion module goes: its transformer, or its ResBlock."""
    kinds = (SpatialTransformer,) if middle else (SpatialTransformer, ResBlock)
    layers = [layer for layer in block.children() if isinstance(layer, kinds)]
    return layers[-1] if layers else next(iter(block.children()))


def unet_blocks(network: PictureNetwork) -> Iterable[nn.Module]:
    """What of a UNet is worth computing anew in the backward pass."""
    for layer in network.unet.modules():
        if isinstance(layer, ResBlock | SpatialTransformer):
            yield layer
    if network.motion is not None:
        yield from (module for _, module in network.motion.items())  # type: ignore[operator]


def takes_labels(model: Any) -> bool:
    """Whether a UNet is told of a picture's size beside its text, as SDXL's."""
    return bool(model.model.adm_channels)


def labels(model: Any, pooled: Tensor, width: int, height: int) -> Tensor:
    """What SDXL is told of a picture's size beside its text (b, d)."""
    told = {"width": width, "height": height, "target_width": width, "target_height": height}
    return model.model.encode_adm(pooled_output=pooled, device="cpu", **told)


def text_features(clip: Any, text: str) -> dict[str, Tensor | None]:
    """The features (l, d) of a caption as the host's CLIP Text Encode gives them, and those of all of it (1, d)."""
    features, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    return {
        "context": features[0].float().cpu(),
        "pooled": None if pooled is None else pooled[:1].float().cpu(),
    }
