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
from ...modules.conditioning.pinned_frames import pin_frames
from ..host.description import VideoModel, describe, input_channels
from ..host.diffusion import CONCAT, CONCAT_MASK, CONTROL
from ..host.guards import NUM_FRAMES
from ..host.latents import check_vae, clip_frames, read_latent, samples_of, set_conditioning
from ..host.vae import FamilyVAE
from .encoding import condition_svd, start_from_image, vae_grid

SERVES = (
    "CogVideoX-Fun InP (images, an end image, a masked video), CogVideoX text to video (a masked video), CogVideoX "
    "image to video (one start image), SVD and models with a motion module (images, an end image, a masked video)"
)
VOID = "models of ComfyUI with three times the latent channels, such as VOID"
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
        check_length(video, num_frames)
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
        return *_mask_as_latents(model, vae, latent, conditionings, given, node), latent
    described = _describe(model, node)
    check_clip(described, read_latent(latent, described.grid, described.label))
    strength = described.image_noise if mode["image_noise"] == AS_TRAINED else 0.0
    if described.takes == "inpaint":
        return *_for_inp(vae, latent, conditionings, given, strength, mode["seed"], node), latent
    if described.takes == "image" and described.clip_axis is None:
        return _for_svd(vae, latent, given, clip_vision, strength, mode["seed"], node)
    if described.takes == "image":
        return *_for_first_frame(vae, latent, conditionings, given, described, mode["seed"], node), latent
    if described.knows_neighbours:
        return *_prompts(conditionings, node), _kept_clip(vae, latent, given, node)
    if described.takes == "nothing" and described.clip_axis is not None:
        return *_prompts(conditionings, node), _masked_latent(vae, latent, given, described, node)
    raise _not_served(described.label, node)


def follow(
    conditionings: tuple[Any, Any], vae: Any, video: Tensor, latent: dict[str, Any], fit: str, node: str
) -> tuple[Any, ...]:
    """CONDITIONINGs with the latents of a clip to follow, the most likely ones, for a Control network."""
    vae_grid(vae, node)
    width, height, num_frames = clip_size(vae, latent, node)
    check_length(video, num_frames)
    mean, _ = vae.encode_moments(fit_image(video[..., :3], width, height, fit))
    return tuple(set_conditioning(entry, **{CONTROL: mean}) for entry in conditionings)


def check_length(video_fhwc: Tensor, num_frames: int) -> None:
    """ValueError unless a video is as long as the clip."""
    if len(video_fhwc) != num_frames:
        raise ValueError(
            f"The video has {len(video_fhwc)} frames, the latent is for {num_frames}: make both as long."
        )


def check_clip(described: VideoModel, samples: Tensor) -> None:
    """ValueError for a clip of a size or length that the MODEL cannot sample."""
    if described.clip_axis is None:
        return
    latent_frames = samples.shape[2]
    height, width = (cells * described.grid.stride_hw for cells in samples.shape[-2:])
    described.limits.check(described.label, width, height, described.grid.pixel_frames(latent_frames))
    described.frame_rule.check(described.label, latent_frames, described.grid)


def clip_size(vae: Any, latent: dict[str, Any], node: str) -> tuple[int, int, int]:
    """(width, height, frames) in pixels of one clip of a LATENT for its VAE, one of this pack or of the host."""
    samples = samples_of(latent)
    check_vae(vae, samples, node)
    height, width = (cells * vae.spacial_compression_encode() for cells in samples.shape[-2:])
    if samples.ndim == 4:
        return width, height, clip_frames(latent)[0]
    latent_frames = samples.shape[2]
    if not isinstance(vae, FamilyVAE):
        return width, height, vae.upscale_ratio[0](latent_frames)
    told, decoded = latent.get(NUM_FRAMES), vae.decoded_frames(latent_frames)
    return width, height, vae.recipe.grid.told_frames(latent_frames, told, decoded)[0]


def _describe(model: Any, node: str) -> VideoModel:
    """What a MODEL is; ValueError, with all that are served, for one that nobody here knows."""
    try:
        return describe(model, node)
    except ValueError as error:
        raise _not_served(type(model.model).__name__, node) from error


def _not_served(label: str, node: str) -> ValueError:
    return ValueError(
        f"{node} has no way to tell {label} what is known of a clip. It serves {SERVES}; with mode '{VAE_LATENTS}' "
        f"also {VOID}."
    )


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
    strength: float,
    seed: int,
    node: str,
) -> tuple[Any, ...]:
    """The known clip and its mask beside the noise; nothing where all is to be made anew."""
    conditionings, grid = _prompts(conditionings, node), vae_grid(vae, node)
    width, height, num_frames = clip_size(vae, latent, node)
    if given.is_nothing or (clip := given.known(num_frames, width, height)).is_unknown:
        return conditionings
    pixels = noise_known(clip.pixels(), strength, seed) if strength else clip.pixels()
    mean, _ = vae.encode_moments(pixels)
    values = {CONCAT: mean, CONCAT_MASK: latent_mask(clip.hidden, mean.shape[2], grid.stride_hw)}
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
    vae: Any, latent: dict[str, Any], given: Given, described: VideoModel, node: str
) -> dict[str, Any]:
    """A LATENT that holds the clip, with a mask by which samplers put back what is known."""
    if given.video is None:
        raise ValueError(
            f"{described.label} takes a video with a mask and no images. {node} serves {SERVES}."
        )
    grid = vae_grid(vae, node)
    width, height, num_frames = clip_size(vae, _unmasked(latent), node)
    clip = given.known(num_frames, width, height)
    mean, _ = vae.encode_moments(clip.frames)
    mask = covering_mask(clip.hidden, mean.shape[2], grid.stride_hw)
    return {**latent, "samples": mean.expand(len(samples_of(latent)), -1, -1, -1, -1), "noise_mask": mask}


def _kept_clip(vae: Any, latent: dict[str, Any], given: Given, node: str) -> dict[str, Any]:
    """A LATENT of pictures with motion, in which what is known stays: the motion module draws the others to it."""
    if given.is_nothing:
        return latent
    width, height, num_frames = clip_size(vae, latent, node)
    return _kept_frames(vae, _unmasked(latent), given.known(num_frames, width, height))


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
    only_start = given.video is None and given.end is None and len(given.start) == 1
    kept = latent if only_start else _kept_frames(vae, _unmasked(latent), clip)
    numbers = {**SVD_NUMBERS, "augmentation_level": strength}
    # as it came: the image encoder sees all of it, whatever the fit
    first = given.start[:1] if given.video is None else given.video[:1]
    return *condition_svd(clip_vision, vae, first, latent, numbers, given.fit, seed, node), kept


def _kept_frames(vae: Any, latent: dict[str, Any], clip: KnownClip) -> dict[str, Any]:
    """A LATENT with frames on the batch axis that holds what is known, and a mask by which samplers put it back."""
    samples, num_frames = samples_of(latent), len(clip.frames)
    stride, count = vae.spacial_compression_encode(), len(samples) // num_frames
    numbers = [i for i, mask in enumerate(clip.hidden) if not bool(mask.all())]
    if numbers:
        pictures = vae.encode(clip.frames[numbers])
        samples = pin_frames(samples, pictures, tuple(numbers), num_frames)
    masks = [covering_mask(mask[None], 1, stride)[:, :, 0] for mask in clip.hidden]
    return {**latent, "samples": samples, "noise_mask": torch.cat(masks).repeat(count, 1, 1, 1)}


def _unmasked(latent: dict[str, Any]) -> dict[str, Any]:
    """The LATENT; ValueError where it has a mask already, which would be lost."""
    if latent.get("noise_mask") is not None:
        raise ValueError(
            "The latent has a mask of its own (from Pin Frames or Set Latent Noise Mask), which the new one would "
            "replace: give the latent without it."
        )
    return latent


def _mask_as_latents(
    model: Any, vae: Any, latent: dict[str, Any], conditionings: tuple[Any, Any], given: Given, node: str
) -> tuple[Any, ...]:
    """Mask and known clip, both encoded by the VAE, for networks of three times the latent channels.

    EasyAnimate's image to video (4 + 4 + 4 channels), and the host's VOID (Comfy-Org/ComfyUI, 16 + 16 + 16).
    """
    channels, wanted = input_channels(model), 3 * samples_of(latent).shape[1]
    if channels not in (None, wanted):
        raise ValueError(
            f"Mode '{VAE_LATENTS}' is for models of {wanted} input channels here, such as ComfyUI's VOID: this one "
            f"has {channels}. Choose mode '{RESIZED}'."
        )
    if given.is_nothing:
        raise ValueError(f"Mode '{VAE_LATENTS}' needs start_images, or a video with a mask.")
    width, height, num_frames = clip_size(vae, latent, node)
    clip = given.known(num_frames, width, height)
    known = (1 - clip.mask)[..., None].expand(-1, -1, -1, 3)
    latents = torch.cat([vae.encode(known), vae.encode(clip.dimmed())], dim=1)
    return tuple(set_conditioning(entry, **{CONCAT: latents}) for entry in _prompts(conditionings, node))
