"""What a CogVideoX transformer is conditioned on: a prompt, and for image to video a first frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..family import Clip, Request
from .config import GRID, CogVideoXConfig


def conditions(config: CogVideoXConfig, request: Request) -> dict[str, Tensor | int]:
    """Text features and, for image to video, image latents, checked against the checkpoint."""
    named: dict[str, Tensor | int] = {}
    if request.context is not None:
        named["context"] = check_text_width(config, request.context)
    image = image_channels(config, request)
    if image is not None:
        named["concat"] = image
    return named


def check_text_width(config: CogVideoXConfig, context_bld: Tensor) -> Tensor:
    """The features; ValueError when the prompt was encoded by a text encoder of another width."""
    if context_bld.shape[-1] != config.text_dim:
        raise ValueError(
            f"The prompt was encoded to {context_bld.shape[-1]} numbers a token, this {config.variant} "
            f"checkpoint takes {config.text_dim}: use the CLIP output of the loader that loaded the model."
        )
    return context_bld


def image_channels(config: CogVideoXConfig, request: Request) -> Tensor | None:
    """Image latents (b, c, t, h, w) for the channel axis, scaled as the checkpoint was trained.

    Frames that the sampler added behind an odd clip are silent like all but the first. Raises ValueError when
    an image-to-video checkpoint got no image, a text-to-video one got an image, or the sizes differ.
    """
    image, sizes = request.image_latents, request.noise_shape[2:]
    if not config.image_to_video:
        if image is not None:
            raise ValueError(
                f"{config.variant} is a text-to-video checkpoint and takes no image conditioning: load an "
                "image-to-video (I2V) checkpoint, or connect the prompt directly."
            )
        return None
    if image is None:
        raise ValueError(
            f"{config.variant} is an image-to-video checkpoint: connect Image To Video Conditioning between the "
            "prompts and the sampler."
        )
    if image.ndim != len(request.noise_shape):
        raise ValueError(
            f"Image conditioning of another family: its latents have {image.ndim} axes, {config.variant} takes "
            f"{len(request.noise_shape)}. Use Image To Video Conditioning with the VAE of the model's loader."
        )
    image = image[:1] * config.image_latent_scale
    missing = sizes[0] - image.shape[2]
    if 0 < missing < config.patch_size_t:
        image = F.pad(image, (0, 0, 0, 0, 0, missing))
    if tuple(image.shape[2:]) != tuple(sizes):
        raise ValueError(
            f"Image conditioning is for latents of {tuple(image.shape[2:])} (frames, height, width) but "
            f"the latent to sample is {tuple(sizes)}: give Image To Video Conditioning the same latent that goes "
            "into the sampler."
        )
    return image


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
