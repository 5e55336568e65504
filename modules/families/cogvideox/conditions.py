"""What a CogVideoX transformer is conditioned on: a prompt, and what its release has on the channel axis."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..family import Clip, Request
from ..text import check_text_width
from .config import GRID, CogVideoXConfig

# What a release takes beside a prompt: the node that gives it, and what such a release is called.
NODES = {
    "image": "Image To Video Conditioning",
    "inpaint": "Inpaint Conditioning",
    "control": "Control Video Conditioning",
}
CALLED = {"image": "an image-to-video", "inpaint": "an InP", "control": "a Control"}


def conditions(config: CogVideoXConfig, request: Request) -> dict[str, Tensor | int]:
    """Text features, and the channels beside the noise, checked against the checkpoint."""
    named: dict[str, Tensor | int] = {}
    if request.context is not None:
        named["context"] = check_text_width(request.context, config.text_dim, config.variant)
    channels = channels_beside(config, request)
    if channels is not None:
        named["concat"] = channels
    return named


def channels_beside(config: CogVideoXConfig, request: Request) -> Tensor | None:
    """(b, c, t, h, w) for the channel axis, scaled as the checkpoint was trained; None for text to video.

    ValueError when the conditioning is of another kind than the checkpoint's, is lacking, or is of another size.
    """
    check_kind(config, request)
    if config.takes == "inpaint":
        return inpaint_channels(config, request)
    if config.takes == "control":
        return fit_to(config, request, request.control_latents) * config.image_latent_scale
    return image_channels(config, request) if config.takes == "image" else None


def check_kind(config: CogVideoXConfig, request: Request) -> None:
    """ValueError unless the conditioning is of the kind that the checkpoint takes.

    An InP one does without: that is text to video.
    """
    kind = request.beside
    if kind == config.takes or (kind == "nothing" and config.takes == "inpaint"):
        return
    if config.takes == "nothing":
        raise ValueError(
            f"{config.variant} is a text-to-video checkpoint and takes no {kind} conditioning: load {CALLED[kind]} "
            "checkpoint, or connect the prompt directly."
        )
    came = "" if kind == "nothing" else f", not {NODES[kind]}"
    raise ValueError(
        f"{config.variant} is {CALLED[config.takes]} checkpoint: connect {NODES[config.takes]}{came} between the "
        "prompts and the sampler."
    )


def image_channels(config: CogVideoXConfig, request: Request) -> Tensor:
    """Image latents. Frames that the sampler added behind an odd clip are silent like all but the first."""
    image = request.image_latents
    if image is not None and image.ndim == len(request.noise_shape):
        missing = request.noise_shape[2] - image.shape[2]
        if 0 < missing < config.patch_size_t:
            image = F.pad(image, (0, 0, 0, 0, 0, missing))
    return fit_to(config, request, image) * config.image_latent_scale


def inpaint_channels(config: CogVideoXConfig, request: Request) -> Tensor:
    """Where the clip is known, then the clip there, both scaled; all zero for text to video.

    aigc-apps/VideoX-Fun, pipeline_cogvideox_fun_inpaint: the mask channel is scaled like latents, and a clip that is
    all to be made anew has no mask at all.
    """
    if request.image_latents is None and request.mask is None:
        return torch.zeros(1, 1 + config.out_channels, *request.noise_shape[2:])
    image, mask = fit_to(config, request, request.image_latents), fit_to(config, request, request.mask)
    return torch.cat([1 - mask, image], dim=1) * config.image_latent_scale


def fit_to(config: CogVideoXConfig, request: Request, latents: Tensor | None) -> Tensor:
    """The first of a batch of latents; ValueError when they are not as long and as large as those to sample."""
    if latents is None:
        raise ValueError(f"{config.variant} lacks latents of {NODES[config.takes]}: connect it anew.")
    if latents.ndim != len(request.noise_shape):
        raise ValueError(
            f"Conditioning of another family: its latents have {latents.ndim} axes, {config.variant} takes "
            f"{len(request.noise_shape)}. Use {NODES[config.takes]} with the VAE of the model's loader."
        )
    if tuple(latents.shape[2:]) != request.noise_shape[2:]:
        raise ValueError(
            f"The conditioning is for latents of {tuple(latents.shape[2:])} (frames, height, width) but "
            f"the latent to sample is {request.noise_shape[2:]}: give {NODES[config.takes]} the same latent that "
            "goes into the sampler."
        )
    return latents[:1]


def inputs(config: CogVideoXConfig, clip: Clip) -> dict[str, Tensor]:
    """Arguments of the transformer for a clip: noise, and a prompt of as many tokens as it was trained with."""
    width, height = GRID.latent_size(clip.width, clip.height)
    frames = GRID.latent_frames(clip.num_frames)
    frames += config.frame_rule.missing(frames)
    return {
        "x_bcthw": torch.randn(clip.count, config.in_channels, frames, height, width),
        "timestep_b": torch.randint(0, 1000, (clip.count,)).float(),
        "context_bld": torch.randn(clip.count, config.max_text_tokens, config.text_dim),
    }
