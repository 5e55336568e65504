"""The first frame of an image-to-video clip: fitted to the size, encoded, and padded with silence.

CogVideoX-I2V (zai-org/CogVideo; diffusers CogVideoXImageToVideoPipeline): the image's latent stands at
frame 0 of the conditioning, the other frames are zeros.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Literal["crop", "stretch", "exact"]


def fit_image(
    image_bhwc: Tensor, width: int, height: int, fit: Fit, advance: Callable[[], None] = lambda: None
) -> Tensor:
    """Images (b, h, w, c) in 0..1 at (width, height): bicubic, antialiased when they shrink.

    "crop" covers the size and cuts evenly what hangs over, "stretch" squeezes, "exact" raises ValueError
    unless the size is already right. `advance` is called after each image that was resized.
    """
    have_h, have_w = image_bhwc.shape[1:3]
    if (have_h, have_w) == (height, width):
        return image_bhwc
    if fit == "exact":
        raise ValueError(
            f"The image is {have_w}x{have_h}, the clip {width}x{height}: resize the image, make the clip that "
            'size, or choose fit "crop" or "stretch".'
        )
    scale = max(width / have_w, height / have_h)
    new_w, new_h = (width, height) if fit == "stretch" else (round(have_w * scale), round(have_h * scale))
    top, left = (new_h - height) // 2, (new_w - width) // 2
    fitted = []
    for image_1chw in image_bhwc.movedim(-1, 1).split(1):
        resized = F.interpolate(
            image_1chw, size=(new_h, new_w), mode="bicubic", antialias=True, align_corners=False
        )
        fitted.append(resized[:, :, top : top + height, left : left + width].clamp(0, 1))
        advance()
    return torch.cat(fitted).movedim(1, -1)


def sample_posterior(mean: Tensor, log_variance: Tensor, seed: int | None) -> Tensor:
    """A draw from the VAE's Gaussian posterior with a seeded CPU generator; its mean when `seed` is None."""
    if seed is None:
        return mean
    return at_noise(mean, log_variance, posterior_noise(mean.shape, seed).to(mean))


def posterior_noise(shape: Sequence[int], seed: int) -> Tensor:
    """The noise of a draw for latents of a shape, on the CPU."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def at_noise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Where unit noise falls in the VAE's Gaussian posterior.

    The log-variance is clamped to [-30, 20] (Rombach et al., arXiv 2112.10752, and all that follow it).
    """
    return mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise


def pad_frames(first_bcthw: Tensor, latent_frames: int) -> Tensor:
    """Latents of the first frame followed by zeros up to `latent_frames`."""
    missing = latent_frames - first_bcthw.shape[2]
    return F.pad(first_bcthw, (0, 0, 0, 0, 0, missing))
