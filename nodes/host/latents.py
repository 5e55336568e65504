"""LATENT and CONDITIONING of the host: how latents lie, how many frames a clip has, and what fits what."""

from typing import Any

import node_helpers
from torch import Tensor

from ...modules.grid import LatentGrid, told_clips, whole_number
from .guards import NUM_FRAMES

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
    grid.check_cells(label, *samples.shape[-2:])
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
    frames, note = told_clips(total, latent.get(NUM_FRAMES))
    places = latent.get("batch_index") or ()  # where a node that took some of the batch took them from
    if frames == whole_number(latent.get(NUM_FRAMES)) and len(places) == total:
        for start in range(0, total, frames):
            if len({place // frames for place in places[start : start + frames]}) > 1:
                raise ValueError(
                    f"The latent holds frames {places[start]} to {places[start + frames - 1]} of a batch of "
                    f"clips of {frames} frames, parts of two clips: take whole clips out of a batch."
                )
    return frames, note


def check_clips(frames: int, *conditionings: Any) -> None:
    """ValueError when a CONDITIONING was made for clips of another length than the LATENT's."""
    for entry in (entry for conditioning in conditionings for entry in conditioning):
        told = entry[1].get(NUM_FRAMES, frames)
        if told != frames:
            raise ValueError(
                f"The conditioning is for clips of {told} frames, the latent has clips of {frames}: give "
                "SVD Conditioning the latent that goes into the sampler."
            )


def set_conditioning(conditioning: Any, **values: Any) -> Any:
    """A copy of a CONDITIONING with `values` added to every entry."""
    return node_helpers.conditioning_set_values(conditioning, values)
