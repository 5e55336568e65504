"""IMAGE, LATENT, CONDITIONING and VIDEO of the host, to and from the layouts of this pack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import node_helpers
import torch
from torch import Tensor

from ...modules.grid import LatentGrid, told_clips, whole_number
from .api import InputImpl
from .vae import FamilyVAE, FramesVAE, VideoVAE

NATIVE_SIZE = "kinetograph_native_size"  # an attachment of a MODEL; clones keep it
# How latents lie, by the number of axes that a VAE of the host tells; the hole is for their channels.
AXES = {1: "(batch, {}, length)", 2: "(frames, {}, height, width)", 3: "(batch, {}, frames, height, width)"}


def samples_of(latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT; ValueError where they are several tensors in one, or none."""
    samples = latent["samples"]
    if samples.is_nested:
        raise ValueError(
            "The latent holds several tensors in one, such as video and sound: separate them with the nodes of "
            "the model that made it."
        )
    if not samples.numel():
        raise ValueError(f"The latent is empty: its shape is {tuple(samples.shape)}.")
    return samples


def read_latent(latent: dict[str, Any], grid: LatentGrid, label: str) -> Tensor:
    """The samples of a LATENT, checked against a family; ValueError says what fits.

    (frames, c, h, w) where frames lie on the batch axis, else (b, c, t, h, w).
    """
    samples = samples_of(latent)
    if samples.ndim != (4 if grid.frames_on_batch else 5) or samples.shape[1] != grid.channels:
        wanted = AXES[2 if grid.frames_on_batch else 3].format(grid.channels)
        raise ValueError(
            f"{label} takes latents of shape {wanted}: got {tuple(samples.shape)}. Make the latent with "
            "Video Latent for this family, or encode frames with this model's VAE."
        )
    for name, cells in (("height", samples.shape[-2]), ("width", samples.shape[-1])):
        if cells % grid.patch_hw:
            low = (cells - cells % grid.patch_hw) * grid.stride_hw
            raise ValueError(
                f"{label} needs sizes in multiples of {grid.multiple_hw} pixels: got {name} "
                f"{cells * grid.stride_hw}, use {' or '.join(map(str, filter(None, (low, low + grid.multiple_hw))))}."
            )
    return samples


def check_vae(vae: Any, samples: Tensor, node: str) -> None:
    """ValueError unless latents have the axes and channels that a VAE takes, and it makes pictures of them.

    What a VAE of another pack does not tell passes.
    """
    network = getattr(vae, "first_stage_model", vae)
    if network is None:
        raise ValueError(f"The VAE connected to {node} has no weights: load another file.")
    axes, channels = getattr(vae, "latent_dim", None), getattr(vae, "latent_channels", None)
    if axes in AXES and channels is not None and (samples.ndim - 2, *samples.shape[1:2]) != (axes, channels):
        raise ValueError(
            f"The VAE connected to {node} ({type(network).__name__}) takes latents of shape "
            f"{AXES[axes].format(channels)}: got {tuple(samples.shape)}. Connect the VAE of the model that the "
            "latent is for."
        )
    if axes == 1 or getattr(vae, "output_channels", 3) < 3:
        raise ValueError(
            f"The VAE connected to {node} ({type(network).__name__}) makes something else than pictures, such as "
            "sound: connect the VAE of a picture or video model."
        )


def clip_frames(latent: dict[str, Any]) -> tuple[int, str]:
    """(frames of one clip, what was assumed) of a LATENT with frames on the batch axis.

    Raises ValueError when it holds no whole number of clips, or parts of two in place of one.
    """
    total = latent["samples"].shape[0]
    frames, note = told_clips(total, latent.get("num_frames"))
    places = latent.get("batch_index") or ()  # where a node that took some of the batch took them from
    if frames == whole_number(latent.get("num_frames")) and len(places) == total:
        for start in range(0, total, frames):
            if len({place // frames for place in places[start : start + frames]}) > 1:
                raise ValueError(
                    f"The latent holds frames {places[start]} to {places[start + frames - 1]} of a batch of "
                    f"clips of {frames} frames, parts of two clips: take whole clips out of a batch."
                )
    return frames, note


@dataclass(frozen=True)
class Clips:
    """A LATENT that a VAE can decode, and how long its clips will be."""

    samples: Tensor
    num_frames: int | None  # of one clip; None: as many as the VAE gives
    note: str  # what was assumed about that, for people

    @property
    def total(self) -> int:
        """Frames of all clips, as far as they are known."""
        if self.samples.ndim == 4:
            return self.samples.shape[0]
        return self.samples.shape[0] * (self.num_frames or 1)


def read_clips(latent: dict[str, Any], vae: Any, node: str) -> Clips:
    """The clips of a LATENT; ValueError where a VAE cannot decode them or their number of frames is wrong."""
    samples = samples_of(latent)
    check_vae(vae, samples, node)
    if isinstance(vae, VideoVAE):
        count = samples.shape[2]
        told = vae.recipe.grid.told_frames(count, latent.get("num_frames"), vae.decoded_frames(count))
        return Clips(samples, *told)
    return Clips(samples, *clip_frames(latent)) if samples.ndim == 4 else Clips(samples, None, "")


def check_clips(frames: int, *conditionings: Any) -> None:
    """ValueError when a CONDITIONING was made for clips of another length than the LATENT's."""
    for entry in (entry for conditioning in conditionings for entry in conditioning):
        told = entry[1].get("num_frames", frames)
        if told != frames:
            raise ValueError(
                f"The conditioning is for clips of {told} frames, the latent has clips of {frames}: give "
                "SVD Conditioning the latent that goes into the sampler."
            )


def set_conditioning(conditioning: Any, **values: Any) -> Any:
    """A copy of a CONDITIONING with `values` added to every entry."""
    return node_helpers.conditioning_set_values(conditioning, values)


def is_video_vae(vae: Any) -> bool:
    """Whether a VAE socket carries one of this pack's streaming video VAEs."""
    return isinstance(vae, VideoVAE)


def affordable_frames(vae: Any, samples: Tensor) -> int:
    """How many frames of (n, c, h, w) latents the free memory of the VAE's device decodes at once."""
    free = vae.patcher.get_free_memory(vae.device) * 0.8
    if isinstance(vae, FramesVAE):
        return vae.affordable_frames(samples.shape, free)
    return max(1, int(free / vae.memory_used_decode((1, *samples.shape[1:]), vae.vae_dtype)))


def pixel_size(vae: Any, samples: Tensor) -> tuple[int, int]:
    """(width, height) in pixels that a LATENT will decode to."""
    stride = vae.spacial_compression_decode()
    return samples.shape[-1] * stride, samples.shape[-2] * stride


def video_from_file(path: Path) -> Any:
    """A VIDEO of the host that reads the finished file."""
    return InputImpl.VideoFromFile(str(path))


def vae_grid(vae: Any, node: str) -> LatentGrid:
    """The grid of a VAE of this pack; ValueError when another VAE is connected."""
    if not isinstance(vae, FamilyVAE):
        raise ValueError(
            f"{node} needs the VAE output of a loader of this pack: got {type(vae).__name__}. Connect the VAE "
            "of the model's loader."
        )
    return vae.recipe.grid


def rgb_map(model: Any) -> tuple[Any, Any]:
    """The (channels, 3) colours map of a MODEL's latents and its bias, for previews."""
    latents = model.get_model_object("latent_format")
    return latents.latent_rgb_factors, latents.latent_rgb_factors_bias


def label_of(model: Any) -> str:
    """What a MODEL is, in words for messages: family and variant of ours, the class of the host's."""
    recipe = getattr(model.model, "recipe", None)
    return type(model.model).__name__ if recipe is None else recipe.label


def machine_memory() -> int:
    """Bytes of main memory, in which latents travel between nodes."""
    return comfy.model_management.get_total_memory(torch.device("cpu"))


def with_native_size(model: Any, size: tuple[int, int, int]) -> Any:
    """The MODEL, a clone of the caller's own, with another (width, height, frames) than its checkpoint tells."""
    model.set_attachments(NATIVE_SIZE, size)
    return model


def native_size(model: Any) -> tuple[int, int, int]:
    """(width, height, frames) in pixels that a MODEL of this pack was trained on, or that a patch made it for."""
    return model.get_attachment(NATIVE_SIZE) or model.model.recipe.config.native_size
