"""What an SVD UNet is conditioned on: the picture, as a CLIP token and as latents, and three numbers.

Stable Video Diffusion (arXiv 2311.15127, sec. 4.2 and appendix D); numbers and scales as in Stability AI's
generative-models (svd_xt.yaml).
"""

import torch
from torch import Tensor

from ...layers.positions import sinusoid
from ..clips import clip_frames, per_frame
from ..family import Clip, Request
from .config import GRID, MICRO_CONDITIONS, SVDConfig

FPS, MOTION, NOISE = 7, 127, 0.0  # where a conditioning does not say


def conditions(config: SVDConfig, request: Request) -> dict[str, Tensor | int]:
    """CLIP tokens, image latents a frame, the sinusoids of the numbers, and the frames of one clip."""
    frames = clip_frames(request, "SVD Conditioning")
    return {
        "context": image_tokens(config, request, frames),
        "concat": image_channels(request, frames),
        "y": micro_conditioning(config, request),
        "num_video_frames": frames,
    }


def micro_conditioning(config: SVDConfig, request: Request) -> Tensor:
    """Sinusoids of fps - 1, motion bucket and noise strength, in this order (1, adm_dim)."""
    numbers = request.numbers
    fps, motion = numbers.get("fps", FPS), numbers.get("motion_bucket_id", MOTION)
    return embed_numbers(config, [fps - 1, motion, numbers.get("noise_aug_strength", NOISE)])


def embed_numbers(config: SVDConfig, numbers: list[float]) -> Tensor:
    """Sinusoids (1, adm_dim) of the micro-conditions, in the order in which the network takes them."""
    return sinusoid(torch.tensor(numbers), config.adm_dim // MICRO_CONDITIONS).flatten()[None]


def image_tokens(config: SVDConfig, request: Request, frames: int) -> Tensor:
    """One CLIP token for the clip or one a frame: (1 or n, 1, context_dim)."""
    context = request.context
    if context is None or context.shape[-1] != config.context_dim:
        got = "none" if context is None else f"{context.shape[-1]} numbers a token"
        raise ValueError(
            f"SVD takes CLIP vision features of {config.context_dim} numbers: got {got}. Connect SVD Conditioning, "
            "with the CLIP_VISION of the loader that loaded the model, between the picture and the sampler."
        )
    return per_frame(context, request, frames, "CLIP features")


def image_channels(request: Request, frames: int) -> Tensor:
    """Image latents for the channel axis, unscaled: (n, 4, h, w)."""
    image = request.image_latents
    if image is None:
        raise ValueError("SVD starts from a picture: connect SVD Conditioning between it and the sampler.")
    wanted = request.noise_shape[1:]
    if tuple(image.shape[1:]) != tuple(wanted):
        raise ValueError(
            f"The picture was encoded to latents of {tuple(image.shape[1:])} (channels, height, width), the "
            f"latent to sample is {tuple(wanted)}: give SVD Conditioning the latent that goes into the sampler."
        )
    return per_frame(image, request, frames, "image latents").expand(request.noise_shape[0], -1, -1, -1)


def inputs(config: SVDConfig, clip: Clip) -> dict[str, Tensor | int]:
    """Arguments of the UNet for a batch of clips: noise beside a picture's latents, a CLIP token, three numbers."""
    width, height = GRID.latent_size(clip.width, clip.height)
    rows = clip.count * clip.num_frames
    return {
        "x_nchw": torch.randn(rows, config.in_channels, height, width),
        "timestep_n": torch.randn(rows),
        "context_nld": torch.randn(rows, 1, config.context_dim),
        "y": embed_numbers(config, [FPS - 1, MOTION, NOISE]),
        "num_video_frames": clip.num_frames,
    }
