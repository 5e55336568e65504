"""Pictures and clips to latents: for video to video, as what a clip starts from, as frames that stay."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...modules.conditioning.augmentation import augment
from ...modules.conditioning.clip_image import clip_pixels
from ...modules.conditioning.first_frame import (
    at_noise,
    fit_image,
    pad_frames,
    posterior_noise,
    sample_posterior,
)
from ...modules.conditioning.pinned_frames import parse_frames, pin_frames, pin_mask, resolve_frames
from ...modules.families import SVD
from ...modules.grid import LatentGrid
from ..host import clip_vision as vision
from ..host import progress
from ..host.diffusion import CONCAT
from ..host.guards import NUM_FRAMES
from ..host.latents import check_vae, clip_frames, read_latent, samples_of, set_conditioning
from ..host.vae import FamilyVAE, Frames
from .latents import latent_shape
from .media import open_video

# encoded at once by a VAE of pictures
PICTURES = 8


@dataclass(frozen=True)
class BatchClip:
    """A LATENT with its frames on the batch axis."""

    samples_nchw: Tensor
    # of one clip; several clips lie one after another
    num_frames: int

    def pixel_size(self, vae: Any) -> tuple[int, int]:
        """(width, height) of the frames in pixels."""
        *_, height, width = self.samples_nchw.shape
        stride = vae.spacial_compression_encode()
        return width * stride, height * stride

    def encode(self, vae: Any, images_bhwc: Tensor) -> Tensor:
        """Unscaled latents (b, c, h, w) of pictures; ValueError unless they fit these samples.

        Values outside 0..1 pass through the host's VAE unclamped.
        """
        latents = vae.encode(images_bhwc)
        if latents.shape[1:] != self.samples_nchw.shape[1:]:
            raise ValueError(
                f"This VAE gives latents of {tuple(latents.shape[1:])}, the clip has "
                f"{tuple(self.samples_nchw.shape[1:])}: connect the VAE of the model that will sample."
            )
        return latents


def read_clip(latent: dict[str, Any], vae: Any, node: str) -> BatchClip:
    """The clip in a LATENT; ValueError unless its frames are on the batch axis, in whole clips, and fit the VAE."""
    samples = samples_of(latent)
    if samples.ndim != 4:
        raise ValueError(
            f"{node} takes latents of shape (frames, channels, height, width), as SVD has them: got "
            f"{tuple(samples.shape)}. Make the latent with Video Latent for family svd."
        )
    check_vae(vae, samples, node)
    return BatchClip(samples, clip_frames(latent)[0])


def vae_grid(vae: Any, node: str) -> LatentGrid:
    """The grid of a VAE of this pack; ValueError when another VAE is connected."""
    if not isinstance(vae, FamilyVAE):
        raise ValueError(
            f"{node} needs the VAE output of a loader of this pack: got {type(vae).__name__}. Connect the VAE "
            "of the model's loader."
        )
    return vae.recipe.grid


def encode_clip(vae: Any, images: Any, seed: int | None, node: str) -> dict[str, Any]:
    """A LATENT of a clip, (f, h, w, 3) or a VIDEO, drawn from the posterior with a seed, or its mean.

    Of a VIDEO a few frames are read at a time. The host's VAEs of pictures give a mean alone.
    """
    frames = images if isinstance(images, Tensor) else open_video(images, node).whole()
    if not isinstance(vae, FamilyVAE) and getattr(vae, "latent_dim", None) == 2:
        return {"samples": _encode_pictures(vae, frames, seed, node), NUM_FRAMES: frames.shape[0]}
    grid = vae_grid(vae, node)
    frames = vae.checked_frames(frames)
    return {"samples": _encode_pieces(vae, grid, frames, seed), NUM_FRAMES: frames.shape[0]}


def _encode_pictures(vae: Any, frames: Frames, seed: int | None, node: str) -> Tensor:
    """Latents (f, c, h, w) of a clip by a VAE of the host, which would crop sizes that do not fold without a word."""
    if seed is not None:
        raise ValueError(
            f"ComfyUI's own VAE gives the mean of the posterior alone: set posterior to mean in {node}."
        )
    stride = vae.spacial_compression_encode()
    LatentGrid(vae.latent_channels, 1, stride, lone_first=False).latent_size(frames.shape[2], frames.shape[1])
    bar, latents = progress.steps(frames.shape[0]), []
    for piece in frames.split(PICTURES):
        latents.append(vae.encode(piece[..., :3]))
        bar.advance(len(piece))
    return torch.cat(latents)


def _encode_pieces(vae: FamilyVAE, grid: LatentGrid, frames: Frames, seed: int | None) -> Tensor:
    """Latents of frames. The noise of the draw lies where they will be, so that nothing else grows with the clip."""
    count, height, width, _ = frames.shape
    channels, latent_frames, cells_h, cells_w = latent_shape(grid, (width, height, count))
    axis = 0 if grid.frames_on_batch else 2
    shape = (channels, cells_h, cells_w) if grid.frames_on_batch else (1, channels, cells_h, cells_w)
    whole = (*shape[:axis], latent_frames, *shape[axis:])
    noise = torch.empty(whole) if seed is None else posterior_noise(whole, seed)
    (latents,), place = vae.to_host((noise,)), 0
    for mean, log_variance in vae.moment_stream(frames):
        part = latents.narrow(axis, place, mean.shape[axis])
        part.copy_(mean if seed is None else at_noise(mean, log_variance, part))
        place += mean.shape[axis]
    return latents


def start_from_image(
    conditionings: tuple[Any, ...],
    vae: Any,
    image: Tensor,
    latent: dict[str, Any],
    fit: str,
    seed: int | None,
    gain: float,
    node: str,
) -> tuple[Any, ...]:
    """CONDITIONINGs with the latents of a first frame, silent behind it, for a causal video VAE."""
    grid = vae_grid(vae, node)
    if grid.frames_on_batch:
        raise ValueError(f"{node} is for video VAEs such as CogVideoX's: for SVD use SVD Conditioning.")
    samples = samples_of(latent)
    check_vae(vae, samples, node)
    *_, latent_frames, height, width = samples.shape
    pixels = fit_image(image[:1], width * grid.stride_hw, height * grid.stride_hw, fit)
    first = sample_posterior(*vae.encode_moments(pixels), seed=seed)
    image_latents = pad_frames(first, latent_frames) * gain
    return tuple(set_conditioning(entry, **{CONCAT: image_latents}) for entry in conditionings)


def condition_svd(
    clip_vision: Any,
    vae: Any,
    image: Tensor,
    latent: dict[str, Any],
    numbers: dict[str, float],
    fit: str,
    seed: int,
    node: str,
) -> tuple[Any, Any]:
    """Positive and negative CONDITIONING of a clip that starts from a picture, or has one for each frame.

    `numbers` are those of SVD's micro-conditioning, by the host's names; the noise of `augmentation_level` is
    measured in -1..1, as in training.
    """
    read_latent(latent, SVD.network.grid, SVD.label)
    clip = read_clip(latent, vae, node)
    check_count(image, clip.num_frames)
    # each is prepared for two encoders
    bar = progress.steps(2 * len(image))
    pixels = clip_pixels(image, vision.input_size(clip_vision), bar.advance)
    tokens = vision.embed_pixels(clip_vision, pixels)
    fitted = fit_image(image[..., :3], *clip.pixel_size(vae), fit, bar.advance)
    latents = encode_noised(vae, clip, fitted, numbers["augmentation_level"], seed)
    shared = {**numbers, NUM_FRAMES: clip.num_frames}
    return (
        [[tokens, {**shared, CONCAT: latents}]],
        [[torch.zeros_like(tokens), {**shared, CONCAT: torch.zeros_like(latents)}]],
    )


def check_count(image_bhwc: Tensor, num_frames: int) -> None:
    """ValueError unless there is one picture, or one per frame."""
    if image_bhwc.shape[0] not in (1, num_frames):
        raise ValueError(
            f"SVD takes one picture, or one per frame: got {image_bhwc.shape[0]} pictures for {num_frames} "
            "frames. Choose one with Get Image from Batch, or make the latent as long as the pictures."
        )


def encode_noised(vae: Any, clip: BatchClip, pixels_bhwc: Tensor, strength: float, seed: int) -> Tensor:
    """Latents (b, 4, h, w) of pictures with augmentation noise."""
    noised_bchw = augment(pixels_bhwc.movedim(-1, 1) * 2 - 1, strength, seed)
    return clip.encode(vae, (noised_bchw.movedim(1, -1) + 1) / 2)


def pin(latent: dict[str, Any], vae: Any, images: Tensor, frames: str, fit: str, node: str) -> dict[str, Any]:
    """A LATENT whose frames of these numbers are pictures that the sampler leaves alone."""
    clip = read_clip(latent, vae, node)
    numbers = resolve_frames(parse_frames(frames), clip.num_frames)
    if len(numbers) != images.shape[0]:
        raise ValueError(
            f"One picture per frame number: got {images.shape[0]} pictures for {len(numbers)} numbers in "
            f"{frames!r}."
        )
    bar = progress.steps(len(images))
    pictures = clip.encode(vae, fit_image(images[..., :3], *clip.pixel_size(vae), fit, bar.advance))
    samples = pin_frames(clip.samples_nchw, pictures, numbers, clip.num_frames)
    mask = pin_mask(latent.get("noise_mask"), clip.samples_nchw, numbers, clip.num_frames)
    return {**latent, "samples": samples, "noise_mask": mask}
