"""SparseCtrl as a CONTROL_NET of the host: its ControlNet with motion modules behind the blocks, and key frames.

Subclasses of the host's own network and of its CONTROL_NET, so that Apply ControlNet, chains of ControlNets, strength,
the share of the steps, memory and copies are the host's. Frames lie on the batch axis, clip after clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.latent_formats
import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from ...modules.families.family import AddOn
from .backend import Check, HostOperations, attend_short, load_layers
from .diffusion import Fill
from .guards import NUM_FRAMES
from .injection import PictureUNet, blocks_of, frames_of
from .windows import ClipWindow

# pixels a cell of SD1.5's latents, which the stack of convolutions folds a picture by
STRIDE = 8


@dataclass(frozen=True)
class SparseRecipe:
    """A SparseCtrl file, and what its key frames are."""

    # as errors call it
    label: str
    add_on: AddOn
    config: Any
    fill: Fill
    check: Check
    # of the file
    weight_dtype: torch.dtype
    # ValueError for a network, None where it is no UNet of pictures, that it was not made for
    check_base: Callable[[PictureUNet | None], None]
    # as the user wrote them
    key_frames: tuple[int, ...]
    # frames of a clip -> the number of each key frame; ValueError where one is not in the clip
    places: Callable[[int], tuple[int, ...]]
    # pictures (k, h, w, c) at a width and a height
    fit: Callable[[Tensor, int, int], Tensor]


class SparseNetwork(comfy.cldm.cldm.ControlNet):
    """The host's ControlNet with motion modules, and with a convolution of its own for key frames that are latents."""

    def __init__(self, add_on: AddOn, config: Any, layers: Any, dtype: torch.dtype, device: Any):
        width, levels = config.channels[0], len(config.channels)
        super().__init__(
            image_size=32,
            in_channels=4,
            model_channels=width,
            hint_channels=config.hint_channels,
            num_res_blocks=[config.layers] * levels,
            channel_mult=[channels // width for channels in config.channels],
            transformer_depth=[
                int(level < config.attended) for level in range(levels) for _ in range(config.layers)
            ],
            transformer_depth_middle=1,
            context_dim=config.context_dim,
            num_heads=config.heads,
            use_spatial_transformer=True,
            dtype=dtype,
            device=device,
            operations=layers,
        )
        if config.takes_latents:
            conv = layers.Conv2d(config.hint_channels, width, 3, padding=1, dtype=dtype, device=device)
            self.input_hint_block = TimestepEmbedSequential(conv)
        self.motion = add_on.part.build(
            config, ops=HostOperations(layers), attention=attend_short, dtype=dtype, device=device
        )
        # by the place of the block that one is behind
        self.behind = dict(add_on.insert(self.motion))

    def forward(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, num_frames: int, **_: Any
    ) -> dict[str, list[Tensor]]:
        """What the blocks of a UNet get for clips of `num_frames` frames; of `x` (n, 4, h, w) the size alone counts."""
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        h = self.input_blocks[0](torch.zeros_like(x), emb, context) + self.input_hint_block(
            hint, emb, context
        )
        given = []
        for number, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            if number:
                h = block(h, emb, context)
            motion = self.behind.get(f"input_blocks.{number}")
            h = h if motion is None else motion(h, num_frames)
            given.append(zero_conv(h, emb, context))
        h = self.middle_block(h, emb, context)
        return {"middle": [self.middle_block_out(h, emb, context)], "output": given}


class SparseControl(comfy.controlnet.ControlNet):
    """The host's CONTROL_NET of a SparseCtrl file and the numbers of its key frames."""

    def __init__(self, recipe: SparseRecipe, patcher: Any, cast: torch.dtype | None):
        latents = recipe.config.takes_latents
        super().__init__(
            None,
            compression_ratio=1 if latents else STRIDE,
            latent_format=comfy.latent_formats.SD15() if latents else None,
            load_device=patcher.load_device,
            manual_cast_dtype=cast,
            extra_conds=[],
        )
        self.recipe, self.control_model, self.control_model_wrapped = recipe, patcher.model, patcher
        # key frames of the size at hand, each with its mask
        self._frames: Tensor | None = None

    def copy(self) -> "SparseControl":
        other = SparseControl(self.recipe, self.control_model_wrapped, self.manual_cast_dtype)
        self.copy_to(other)
        return other

    def set_cond_hint(self, cond_hint: Tensor, *args: Any, vae: Any = None, **kwargs: Any) -> "SparseControl":
        """Take the pictures (k, c, h, w) of Apply ControlNet; ValueError where they are none for these key frames."""
        self._check_pictures(len(cond_hint), vae)
        return super().set_cond_hint(cond_hint, *args, vae=vae, **kwargs)

    def _check_pictures(self, count: int, vae: Any) -> None:
        numbers = self.recipe.key_frames
        if count != len(numbers):
            raise ValueError(
                f"{self.recipe.label} has {len(numbers)} key frames ({', '.join(map(str, numbers))}), Apply ControlNet got "
                f"{count} pictures: give it one for each, in this order, or change key_frames."
            )
        if not self.recipe.config.takes_latents:
            return
        if vae is None:
            raise ValueError(
                f"{self.recipe.label} takes key frames through the VAE: connect the VAE of the SD1.5 model to the vae socket "
                "of Apply ControlNet."
            )
        channels, axes = getattr(vae, "latent_channels", 4), getattr(vae, "latent_dim", 2)
        if (channels, axes) != (4, 2):
            raise ValueError(
                f"{self.recipe.label} takes latents of SD1.5, 4 channels a picture: the VAE connected to Apply ControlNet "
                f"makes {channels} channels on {axes} axes. Connect the VAE of the SD1.5 model."
            )

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """Before a run: ValueError for a model that it was not made for, or a file that was rewritten."""
        self.recipe.check_base(blocks_of(model.diffusion_model))
        self.recipe.check()
        super().pre_run(model, percent_to_timestep_function)

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: Any
    ) -> Any:
        frames, total = frames_in(len(x_noisy), transformer_options)
        self.recipe.config.check_frames(self.recipe.label, len(frames))
        self.cond_hint = self._hint(x_noisy, frames, total)
        self.set_extra_arg(NUM_FRAMES, len(frames))
        return super().get_control(x_noisy, t, cond, batched_number, transformer_options)

    def _hint(self, x_noisy: Tensor, frames: Sequence[int], total: int) -> Tensor:
        """Key frames at their places in every clip of a batch; all others, and their mask, are zero."""
        pictures = self._pictures(x_noisy)
        places = self.recipe.places(total)
        hint = pictures.new_zeros(len(frames), *pictures.shape[1:])
        for row, frame in enumerate(frames):
            if frame in places:
                hint[row] = pictures[places.index(frame)]
        return hint.repeat(len(x_noisy) // len(frames), 1, 1, 1)

    def _pictures(self, x_noisy: Tensor) -> Tensor:
        """The key frames at the size of `x_noisy`, each with a mask of ones behind its channels."""
        height, width = (side * self.compression_ratio for side in x_noisy.shape[-2:])
        if self._frames is None or self._frames.shape[-2:] != (height, width):
            frames = self._made(self.cond_hint_original[:, :3].movedim(1, -1), width, height)
            self._frames = torch.cat([frames, torch.ones_like(frames[:, :1])], dim=1)
        self._frames = self._frames.to(x_noisy.device, self.manual_cast_dtype or self.control_model.dtype)
        return self._frames

    def _made(self, images_bhwc: Tensor, width: int, height: int) -> Tensor:
        """(k, c, h, w) of pictures: themselves, or latents scaled as a model's; what was loaded is loaded again."""
        if not self.recipe.config.takes_latents:
            return self.recipe.fit(images_bhwc, width, height).movedim(-1, 1)
        stride = self.vae.spacial_compression_encode()
        loaded = comfy.model_management.loaded_models(only_currently_used=True)
        latents = self.vae.encode(self.recipe.fit(images_bhwc, width * stride, height * stride))
        comfy.model_management.load_models_gpu(loaded)
        return self.latent_format.process_in(latents)

    def cleanup(self) -> None:
        self._frames = None
        super().cleanup()


def frames_in(batch: int, options: Any) -> tuple[list[int], int]:
    """(numbers of the frames in one clip of a batch, frames of the whole clip): of a context window some of them alone."""
    frames = frames_of(batch, options)
    window = options.get("context_window")
    if window is None:
        return list(range(frames)), frames
    if isinstance(window, ClipWindow):
        return window.clip_numbers, window.clip_frames
    # 0.30 may put the frame before a window in front of it
    anchor = getattr(window, "causal_anchor_index", None)
    before = [] if anchor is None or anchor < 0 else [anchor]
    return [*before, *window.index_list], window.total_frames


def load_control(recipe: SparseRecipe) -> SparseControl:
    """The CONTROL_NET of a file, in the dtype that the host computes such networks in."""
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(model_params=-1, weight_dtype=recipe.weight_dtype)
    compute = comfy.model_management.unet_manual_cast(dtype, device) or dtype
    patcher = _load(recipe, compute)
    return SparseControl(recipe, patcher, None if patcher.model.dtype == compute else compute)


def _load(recipe: SparseRecipe, compute: torch.dtype, disable_dynamic: bool = False) -> Any:
    def build(layers: Any, dtype: torch.dtype) -> nn.Module:
        return SparseNetwork(recipe.add_on, recipe.config, layers, dtype, torch.device("meta"))

    patcher = load_layers(build, recipe.fill, recipe.weight_dtype, compute, disable_dynamic)
    patcher.cached_patcher_init = (_load, (recipe, compute))
    return patcher
