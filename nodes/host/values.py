"""IMAGE, LATENT, CONDITIONING and VIDEO of the host, to and from the layouts of this pack."""

from pathlib import Path
from typing import Any

import node_helpers
from torch import Tensor

from ...modules.grid import LatentGrid
from .api import InputImpl
from .vae import FamilyVAE, FramesVAE, VideoVAE

NATIVE_SIZE = "kinetograph_native_size"  # an attachment of a MODEL; clones keep it


def read_latent(latent: dict[str, Any], grid: LatentGrid, label: str) -> Tensor:
    """The samples of a LATENT, checked against a family; ValueError says what fits.

    (frames, c, h, w) where frames lie on the batch axis, else (b, c, t, h, w).
    """
    samples = latent["samples"]
    if samples.ndim != (4 if grid.frames_on_batch else 5) or samples.shape[1] != grid.channels:
        axes = "(frames, {})" if grid.frames_on_batch else "(batch, {}, frames)"
        wanted = axes.format(grid.channels).removesuffix(")") + ", height, width)"
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


def clip_frames(latent: dict[str, Any]) -> int:
    """Frames of one clip of a LATENT with frames on the batch axis; all of them where it does not say.

    Raises ValueError when the LATENT is no whole number of such clips.
    """
    total = latent["samples"].shape[0]
    frames = int(latent.get("num_frames") or total)
    if total % frames:
        raise ValueError(
            f"The latent holds {total} frames but says that a clip has {frames}: a node between took frames "
            "away or added some. Make it anew with Video Latent, or keep whole clips."
        )
    return frames


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


def pixel_frames(vae: Any, samples: Tensor) -> int:
    """Frames that a LATENT will decode to: for progress bars."""
    if isinstance(vae, VideoVAE):
        return samples.shape[0] * vae.decoded_frames(samples.shape[2])
    return samples.shape[0]


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


def with_native_size(model: Any, size: tuple[int, int, int]) -> Any:
    """The MODEL, a clone of the caller's own, with another (width, height, frames) than its checkpoint tells."""
    model.set_attachments(NATIVE_SIZE, size)
    return model


def native_size(model: Any) -> tuple[int, int, int]:
    """(width, height, frames) in pixels that a MODEL of this pack was trained on, or that a patch made it for."""
    return model.get_attachment(NATIVE_SIZE) or model.model.recipe.config.native_size
