"""Layers beside those of a UNet of the host: motion modules behind its blocks, by the host's own injections.

The host puts them in when a MODEL is loaded and takes them out when it is not, or when another clone of it is. What is
put in is a slot that by itself passes frames on unchanged: only the patch of a MODEL with motion modules calls what lies
in it. So a network that is left with slots, after an error or when a clone is gone without a word, is still its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor, nn

from ...modules.families.family import AddOn
from . import shared_text
from .backend import Check, HostOperations, attend_short, load_layers
from .diffusion import Fill
from .guards import CLIP_FRAMES, check_whole, checking

# of the injections, the wrappers, the patcher, and of what a call is told in `transformer_options`
KEY = "kinetograph_motion"
MIDDLE = "middle_block"


@dataclass(frozen=True)
class PictureUNet:
    """What a UNet of the host is made of, as far as layers beside its own are concerned."""

    # by level, from the finest
    channels: tuple[int, ...]
    # ResBlocks of each level on the way down
    layers: int
    # width of its text tokens
    context_dim: int


@dataclass(frozen=True)
class Motion:
    """Motion modules to put beside a UNet's blocks."""

    add_on: AddOn
    config: Any
    fill: Fill
    check: Check
    # of the file
    weight_dtype: torch.dtype
    # of what the modules add
    strength: float
    # whether the group norms of the UNet's ResBlocks see all frames of a clip
    joint_base_norms: bool


def picture_unet(model: Any) -> PictureUNet | None:
    """The blocks of a MODEL whose network is the host's UNet of pictures; None for any other MODEL."""
    return blocks_of(model.model.diffusion_model)


def blocks_of(unet: nn.Module) -> PictureUNet | None:
    """The same of a network alone."""
    if not isinstance(unet, UNetModel) or any(
        isinstance(layer, SpatialVideoTransformer) for layer in unet.modules()
    ):
        return None
    levels: list[list[int]] = [[]]
    for block in list(unet.input_blocks)[1:]:
        if isinstance(block[0], Downsample):
            levels.append([])
        else:
            levels[-1] += [layer.out_channels for layer in block if isinstance(layer, ResBlock)]
    depths = {len(level) for level in levels}
    if len(depths) != 1 or 0 in depths or len(unet.output_blocks) != len(levels) * (len(levels[0]) + 1):
        return None
    contexts = [layer.transformer_blocks[0].attn2.to_k.in_features for layer in _transformers(unet)]
    return PictureUNet(tuple(level[-1] for level in levels), len(levels[0]), max(contexts, default=0))


def _transformers(unet: nn.Module) -> Iterator[Any]:
    return (layer for layer in unet.modules() if isinstance(layer, SpatialTransformer))


def has_motion(model: Any) -> bool:
    """Whether a MODEL has motion modules of this pack."""
    return bool(model.get_additional_models_with_key(KEY))


def motion_patcher(model: Any) -> Any:
    """The host's patcher of a MODEL's motion modules: LoRA patches for them go there."""
    return model.get_additional_models_with_key(KEY)[0]


def set_clip_frames(model: Any, frames: int) -> None:
    """Have a MODEL, a clone of the caller's own, take a batch for clips of so many frames."""
    model.model_options.setdefault("transformer_options", {})[CLIP_FRAMES] = frames


def change_motion(model: Any, change: Callable[[Any], Any]) -> Any:
    """A clone of a MODEL with motion modules in which `change` has made another patcher of theirs."""
    clone = model.clone()
    clone.set_additional_models(KEY, [change(motion_patcher(clone))])
    return clone


def add_motion(model: Any, motion: Motion) -> Any:
    """A clone of a MODEL with motion modules; the MODEL stays as it is."""
    clone = model.clone()
    slots = Slots(motion)
    clone.set_additional_models(KEY, [_load(motion, model.model.get_dtype_inference())])
    clone.set_injections(KEY, [PatcherInjection(inject=slots.put_in, eject=slots.take_out)])
    clone.set_model_forward_timestep_embed_patch((Slot, run_slot))
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, slots.tell_frames)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"{KEY}_check", checking(motion.check))
    return clone


def _load(motion: Motion, compute: torch.dtype, disable_dynamic: bool = False) -> Any:
    """A patcher of the modules alone."""

    def build(layers: Any, dtype: torch.dtype) -> nn.Module:
        ops, meta = HostOperations(layers), torch.device("meta")
        return motion.add_on.part.build(
            motion.config, ops=ops, attention=attend_short, dtype=dtype, device=meta
        )

    patcher = load_layers(build, motion.fill, motion.weight_dtype, compute, disable_dynamic)
    patcher.cached_patcher_init = (_load, (motion, compute))
    return patcher


class Slot(nn.Module):
    """A place behind a block. Its layer is none of its children: the UNet's weights stay those of the UNet."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.held = (layer,)

    def forward(self, x: Tensor) -> Tensor:
        return x


def run_slot(slot: Slot, x_nchw: Tensor, emb: Any, context: Any, options: dict[str, Any], *_: Any) -> Tensor:
    """The patch by which the host calls a slot: frames through its layer, where this call knows of motion."""
    told = options.get(KEY)
    return x_nchw if told is None else slot.held[0](x_nchw, *told, options)


class Slots:
    """The slots of one set of motion modules, in whatever copy of the UNet the host puts them."""

    def __init__(self, motion: Motion):
        self.motion = motion
        # of a copy's call that is going on
        self._frames: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
        self._hooks: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()

    def put_in(self, patcher: Any) -> None:
        """Put slots behind the blocks of a MODEL's network, and joint statistics into its norms."""
        self.take_out(patcher)
        unet = patcher.model.diffusion_model
        for place, layer in self.motion.add_on.insert(motion_patcher(patcher).model):
            _insert(unet.get_submodule(place), Slot(layer), middle=place == MIDDLE)
        if self.motion.joint_base_norms:
            self._hooks[unet] = [hook for norm in res_norms(unet) for hook in self._join(norm, unet)]

    def take_out(self, patcher: Any) -> None:
        """The network as the host built it."""
        unet = patcher.model.diffusion_model
        for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
            # a UNet may have no middle
            if block is not None and KEY in dict(block.named_children()):
                delattr(block, KEY)
        for hook in self._hooks.pop(unet, ()):
            hook.remove()

    def tell_frames(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A DIFFUSION_MODEL wrapper: how many frames of this batch make a clip, and how strong their motion is."""
        # time, context, labels, control, then these
        options = kwargs["transformer_options"] if "transformer_options" in kwargs else args[4]
        unet, frames = executor.class_obj, frames_of(len(x), options)
        options[KEY] = (frames, self.motion.strength)
        # after the latents and their time
        shared_text.share(options, args[1] if len(args) > 1 else kwargs.get("context"))
        self._frames[unet] = frames
        try:
            return executor(x, *args, **kwargs)
        finally:
            self._frames.pop(unet, None)

    def _join(self, norm: nn.Module, unet: nn.Module) -> tuple[Any, Any]:
        """Have a norm see all frames of a clip while a call with motion goes on."""

        def to_clips(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor | None:
            frames = self._frames.get(unet)
            return None if frames is None else args[0].unflatten(0, (-1, frames)).transpose(1, 2)

        def to_frames(_: nn.Module, __: Any, out: Tensor) -> Tensor | None:
            return None if unet not in self._frames else out.transpose(1, 2).flatten(0, 1)

        return norm.register_forward_pre_hook(to_clips), norm.register_forward_hook(to_frames)


def frames_of(batch: int, options: dict[str, Any]) -> int:
    """Frames of one clip in a batch of every conditioning's frames; ValueError when they are no whole clips."""
    frames = batch // len(options.get("cond_or_uncond") or (0,))
    clip = options.get(CLIP_FRAMES)
    # of a window there is one clip alone
    if clip is None or options.get("context_window") is not None:
        return frames
    check_whole(frames, clip)
    return clip


def res_norms(unet: Any) -> Iterator[nn.Module]:
    """The group norms of a UNet's ResBlocks, and its last one."""
    for block in unet.modules():
        if isinstance(block, ResBlock):
            yield from (block.in_layers[0], block.out_layers[0])
    yield unet.out[0]


def _insert(block: nn.Module, slot: Slot, middle: bool) -> None:
    """Put a slot behind a block's transformer, or its ResBlock where it has none; what follows keeps its name."""
    children = list(block.named_children())
    kinds = (SpatialTransformer,) if middle else (SpatialTransformer, ResBlock)
    last = max((at for at, (_, layer) in enumerate(children) if isinstance(layer, kinds)), default=0)
    behind = children[last + 1 :]
    for name, _ in behind:
        delattr(block, name)
    for name, layer in ((KEY, slot), *behind):
        block.add_module(name, layer)
