"""Clips of which something is known, for whatever MODEL paints the rest: InP, image to video, text to video, SVD."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...modules.conditioning.first_frame import fit_image
from ...modules.conditioning.inpaint import (
    KnownClip,
    covering_mask,
    known_ends,
    latent_mask,
    noise_known,
    spread_mask,
)
from ..host.description import VideoModel, describe
from ..host.diffusion import CONCAT, CONCAT_MASK, CONTROL
from ..host.guards import NUM_FRAMES
from ..host.latents import check_vae, clip_frames, read_latent, samples_of, set_conditioning
from .encoding import condition_svd, start_from_image, vae_grid

SERVES = (
    "CogVideoX-Fun InP (images, an end image, a masked video), CogVideoX text to video (a masked video), CogVideoX "
    "image to video (one start image), and SVD (images, an end image, a masked video)"
)
# of SVD, where nobody says otherwise
SVD_NUMBERS = {"fps": 7, "motion_bucket_id": 127}
AS_TRAINED, NO_NOISE = NOISES = ("as trained", "none")
RESIZED, VAE_LATENTS = MODES = ("mask resized", "mask as VAE latents")


@dataclass(frozen=True)
class Given:
    """What a user knows of a clip: pictures (f, h, w, c) and masks (f, h, w), None where there is none."""

    start: Tensor | None = None
    end: Tensor | None = None
    video: Tensor | None = None
    mask: Tensor | None = None
    fit: str = "crop"

    def check(self) -> None:
        """ValueError for a combination that tells no clip."""
        if self.video is not None and (self.start is not None or self.end is not None):
            raise ValueError("Connect start and end images, or a video with a mask: not both.")
        if (self.video is None) != (self.mask is None):
            lacking, there = ("mask", "video") if self.mask is None else ("video", "mask")
            raise ValueError(
                f"A {there} needs a {lacking}. To redraw a whole video, encode it with VAE Encode (Chunked) and sample "
                "with a denoise below 1."
            )
        if self.start is None and self.end is not None:
            raise ValueError("An end image needs a start image: connect start_images, too.")

    @property
    def is_nothing(self) -> bool:
        return self.start is None and self.video is None

    def known(self, num_frames: int, width: int, height: int) -> KnownClip:
        """The clip in pixels; ValueError where counts or sizes do not fit."""
        if self.video is None:
            start = None if self.start is None else fit_image(self.start[..., :3], width, height, self.fit)
            end = None if self.end is None else fit_image(self.end[..., :3], width, height, self.fit)
            return known_ends(start, end, num_frames)
        video, mask = self.video[..., :3], self.mask
        if len(video) != num_frames:
            raise ValueError(
                f"The video has {len(video)} frames, the latent is for {num_frames}: make both as long."
            )
        mask = mask.reshape(-1, *mask.shape[-2:])
        if mask.shape[1:] == video.shape[1:3]:
            mask = fit_image(mask[..., None], width, height, self.fit)[..., 0]
        return KnownClip(
            fit_image(video, width, height, self.fit), spread_mask(mask, num_frames, width, height)
        )


def inpaint(
    model: Any,
    vae: Any,
    latent: dict[str, Any],
    conditionings: tuple[Any, Any],
    given: Given,
    clip_vision: Any,
    mode: dict[str, Any],
    node: str,
) -> tuple[Any, Any, dict[str, Any]]:
    """Positive and negative CONDITIONING and the LATENT, by which a sampler keeps what is known of a clip.

    `mode` is the choice of MODES with its parts, an image_noise of NOISES and a seed.
    """
    given.check()
    if mode["mode"] == VAE_LATENTS:
        return *_mask_as_latents(vae, latent, conditionings, given, node), latent
    described = describe(model, node)
    read_latent(latent, described.grid, described.label)
    strength = described.image_noise if mode["image_noise"] == AS_TRAINED else 0.0
    if described.takes == "inpaint":
        return *_for_inp(vae, latent, conditionings, given, described, strength, mode["seed"], node), latent
    if described.takes == "image" and described.clip_axis is None:
        return _for_svd(vae, latent, given, clip_vision, strength, mode["seed"], node)
    if described.takes == "image":
        return *_for_first_frame(vae, latent, conditionings, given, described, mode["seed"], node), latent
    if described.takes == "nothing" and described.clip_axis is not None:
        return *_prompts(conditionings, node), _masked_latent(
            vae, latent, given, described, mode["seed"], node
        )
    raise ValueError(
        f"{node} has no way to tell {described.label} what is known of a clip. It serves {SERVES}."
    )


def follow(
    conditionings: tuple[Any, Any], vae: Any, video: Tensor, latent: dict[str, Any], fit: str, node: str
) -> tuple[Any, ...]:
    """CONDITIONINGs with the latents of a clip to follow, the most likely ones, for a Control network."""
    width, height, num_frames = clip_size(vae, latent, node)
    if len(video) != num_frames:
        raise ValueError(
            f"The video has {len(video)} frames, the latent is for {num_frames}: make both as long."
        )
    mean, _ = vae.encode_moments(fit_image(video[..., :3], width, height, fit))
    return tuple(set_conditioning(entry, **{CONTROL: mean}) for entry in conditionings)


def clip_size(vae: Any, latent: dict[str, Any], node: str) -> tuple[int, int, int]:
    """(width, height, frames) in pixels of one clip of a LATENT for a video VAE of this pack."""
    grid = vae_grid(vae, node)
    samples = samples_of(latent)
    check_vae(vae, samples, node)
    height, width = (cells * grid.stride_hw for cells in samples.shape[-2:])
    if grid.frames_on_batch:
        return width, height, clip_frames(latent)[0]
    frames, _ = grid.told_frames(
        samples.shape[2], latent.get(NUM_FRAMES), vae.decoded_frames(samples.shape[2])
    )
    return width, height, frames


def _prompts(conditionings: tuple[Any, Any], node: str) -> tuple[Any, Any]:
    """Both prompts; ValueError where one is lacking."""
    if None in conditionings:
        raise ValueError(f"{node} needs both prompts for this model: connect positive and negative.")
    return conditionings


def _for_inp(
    vae: Any,
    latent: dict[str, Any],
    conditionings: tuple[Any, Any],
    given: Given,
    described: VideoModel,
    strength: float,
    seed: int,
    node: str,
) -> tuple[Any, ...]:
    """The known clip and its mask beside the noise; nothing where all is to be made anew."""
    conditionings = _prompts(conditionings, node)
    width, height, num_frames = clip_size(vae, latent, node)
    latent_frames = samples_of(latent).shape[2]
    described.frame_rule.check(described.label, latent_frames, described.grid)
    if given.is_nothing or (clip := given.known(num_frames, width, height)).is_unknown:
        return conditionings
    pixels = noise_known(clip.pixels(), strength, seed) if strength else clip.pixels()
    mean, _ = vae.encode_moments(pixels)
    values = {CONCAT: mean, CONCAT_MASK: latent_mask(clip.mask, latent_frames, vae_grid(vae, node).stride_hw)}
    return tuple(set_conditioning(entry, **values) for entry in conditionings)


def _for_first_frame(
    vae: Any,
    latent: dict[str, Any],
    conditionings: tuple[Any, Any],
    given: Given,
    described: VideoModel,
    seed: int,
    node: str,
) -> tuple[Any, ...]:
    """The first frame of an image-to-video network, which takes nothing else."""
    if given.start is None or given.end is not None or len(given.start) > 1:
        raise ValueError(f"{described.label} takes one start image and nothing else. {node} serves {SERVES}.")
    return start_from_image(
        _prompts(conditionings, node), vae, given.start, latent, given.fit, seed, 1.0, node
    )


def _masked_latent(
    vae: Any, latent: dict[str, Any], given: Given, described: VideoModel, seed: int, node: str
) -> dict[str, Any]:
    """A LATENT that holds the clip, with a mask by which samplers put back what is known."""
    if given.video is None:
        raise ValueError(
            f"{described.label} takes a video with a mask and no images. {node} serves {SERVES}."
        )
    width, height, num_frames = clip_size(vae, latent, node)
    clip = given.known(num_frames, width, height)
    mean, _ = vae.encode_moments(clip.frames)
    mask = covering_mask(clip.mask, mean.shape[2], vae_grid(vae, node).stride_hw)
    return {**latent, "samples": mean.expand(len(samples_of(latent)), -1, -1, -1, -1), "noise_mask": mask}


def _for_svd(
    vae: Any, latent: dict[str, Any], given: Given, clip_vision: Any, strength: float, seed: int, node: str
) -> tuple[Any, Any, dict[str, Any]]:
    """SVD's own conditioning from the first picture, and a LATENT whose known frames stay."""
    if clip_vision is None:
        raise ValueError(f"{node} needs SVD's image encoder: connect clip_vision, from SVD Loader.")
    if given.is_nothing:
        raise ValueError(
            f"SVD starts from a picture: connect start_images, or a video with a mask, to {node}."
        )
    width, height, num_frames = clip_size(vae, latent, node)
    clip = given.known(num_frames, width, height)
    numbers = {**SVD_NUMBERS, "augmentation_level": strength}
    both = condition_svd(clip_vision, vae, clip.frames[:1], latent, numbers, given.fit, seed, node)
    if given.video is None and given.end is None and len(given.start) == 1:
        return *both, latent
    return *both, _kept_frames(vae, latent, clip)


def _kept_frames(vae: Any, latent: dict[str, Any], clip: KnownClip) -> dict[str, Any]:
    """A LATENT with frames on the batch axis that holds the clip, with a mask by which samplers put back what is known."""
    samples, num_frames = samples_of(latent), len(clip.frames)
    count, stride = len(samples) // num_frames, vae.spacial_compression_encode()
    known = torch.cat([covering_mask(mask, 1, stride)[0] for mask in clip.mask.split(1)], dim=1).movedim(1, 0)
    return {
        **latent,
        "samples": vae.encode(clip.frames).repeat(count, 1, 1, 1),
        "noise_mask": known.repeat(count, 1, 1, 1),
    }


def _mask_as_latents(
    vae: Any, latent: dict[str, Any], conditionings: tuple[Any, Any], given: Given, node: str
) -> tuple[Any, ...]:
    """Mask and known clip, both encoded by the VAE, for networks of three times the latent channels.

    EasyAnimate's image to video (4 + 4 + 4 channels), and the host's VOID (Comfy-Org/ComfyUI, 16 + 16 + 16).
    """
    width, height, num_frames = clip_size(vae, latent, node)
    if given.is_nothing:
        raise ValueError(f"Mode '{VAE_LATENTS}' needs start_images, or a video with a mask.")
    clip = given.known(num_frames, width, height)
    known = (1 - clip.mask)[..., None].expand(-1, -1, -1, 3)
    latents = torch.cat([vae.encode(known), vae.encode(clip.pixels())], dim=1)
    return tuple(set_conditioning(entry, **{CONCAT: latents}) for entry in _prompts(conditionings, node))
