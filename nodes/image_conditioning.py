"""Pictures that steer a clip with frames on the batch axis: SVD's conditioning, and frames held fixed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..modules.conditioning.augmentation import augment
from ..modules.conditioning.clip_image import clip_pixels
from ..modules.conditioning.first_frame import fit_image
from ..modules.conditioning.pinned_frames import parse_frames, pin_frames, pin_mask, resolve_frames
from ..modules.families.svd.config import GRID
from .host import clip_vision as vision
from .host import progress, values
from .host.api import io
from .host.checks import checked, guarded
from .host.inputs import fit_input

MAX_FPS, MAX_BUCKET, MAX_AUGMENTATION = 120, 1023, 10.0


@dataclass(frozen=True)
class BatchClip:
    """A LATENT with its frames on the batch axis."""

    samples_nchw: Tensor
    num_frames: int  # of one clip; several clips lie one after another

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
    samples = values.samples_of(latent)
    if samples.ndim != 4:
        raise ValueError(
            f"{node} takes latents of shape (frames, channels, height, width), as SVD has them: got "
            f"{tuple(samples.shape)}. Make the latent with Video Latent for family svd."
        )
    values.check_vae(vae, samples, node)
    return BatchClip(samples, values.clip_frames(latent)[0])


def read_svd_clip(latent: dict[str, Any], vae: Any, node: str) -> BatchClip:
    """The same for SVD: four channels, sizes that its UNet can halve three times."""
    values.read_latent(latent, GRID, "SVD")
    return read_clip(latent, vae, node)


class SVDConditioning(io.ComfyNode):
    """Everything SVD is told: the picture for both encoders, frame rate, motion and noise."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSVDConditioning",
            display_name="SVD Conditioning",
            category="kinetograph/conditioning",
            description="Picture, frame rate, motion and augmentation noise for Stable Video Diffusion and "
            "ExVideo, prepared exactly as in training.",
            search_aliases=[
                "svd img2vid",
                "stable video diffusion",
                "motion bucket",
                "micro-conditioning",
            ],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="Image encoder of the SVD checkpoint."),
                io.Vae.Input("vae", tooltip="VAE of the SVD checkpoint."),
                io.Image.Input("image", tooltip="The picture to set in motion, or one picture per frame."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and frame count."
                ),
                io.Int.Input(
                    "fps",
                    default=7,
                    min=1,
                    max=MAX_FPS,
                    tooltip="Frames per second the motion is meant for.",
                ),
                io.Int.Input(
                    "motion_bucket_id",
                    default=127,
                    min=0,
                    max=MAX_BUCKET,
                    tooltip="How much moves: trained on 0 to 255, more is more.",
                ),
                io.Float.Input(
                    "noise_aug_strength",
                    default=0.02,
                    min=0.0,
                    max=MAX_AUGMENTATION,
                    step=0.001,
                    tooltip="Noise added to the picture: more lets the clip leave it further. ExVideo was "
                    "trained with 0.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Seed of that noise."),
                fit_input(),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="The picture, for a sampler."),
                io.Conditioning.Output("negative", tooltip="No picture, the same numbers: for a sampler."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, clip_vision, vae, image, latent, fps, motion_bucket_id, noise_aug_strength, seed, fit
    ) -> io.NodeOutput:
        clip = read_svd_clip(latent, vae, "SVD Conditioning")
        check_count(image, clip.num_frames)
        bar = progress.steps(2 * len(image))  # each is prepared for two encoders
        pixels = clip_pixels(image, vision.input_size(clip_vision), bar.advance)
        tokens = vision.embed_pixels(clip_vision, pixels)
        fitted = fit_image(image[..., :3], *clip.pixel_size(vae), fit, bar.advance)
        latents = encode_noised(vae, clip, fitted, noise_aug_strength, seed)
        numbers = {
            "fps": fps,  # SVD's own models subtract 1
            "motion_bucket_id": motion_bucket_id,
            "augmentation_level": noise_aug_strength,
            "num_frames": clip.num_frames,
        }
        return io.NodeOutput(
            [[tokens, {**numbers, "concat_latent_image": latents}]],
            [[torch.zeros_like(tokens), {**numbers, "concat_latent_image": torch.zeros_like(latents)}]],
        )


def check_count(image_bhwc: Tensor, num_frames: int) -> None:
    """ValueError unless there is one picture, or one per frame."""
    if image_bhwc.shape[0] not in (1, num_frames):
        raise ValueError(
            f"SVD takes one picture, or one per frame: got {image_bhwc.shape[0]} pictures for {num_frames} "
            "frames. Choose one with Get Image from Batch, or make the latent as long as the pictures."
        )


def encode_noised(vae: Any, clip: BatchClip, pixels_bhwc: Tensor, strength: float, seed: int) -> Tensor:
    """Latents (b, 4, h, w) of pictures with augmentation noise, which is measured in -1..1 as in training."""
    noised_bchw = augment(pixels_bhwc.movedim(-1, 1) * 2 - 1, strength, seed)
    return clip.encode(vae, (noised_bchw.movedim(1, -1) + 1) / 2)


class PinFrames(io.ComfyNode):
    """Holds chosen frames of a clip to given pictures while the rest is sampled."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographPinFrames",
            display_name="Pin Frames",
            category="kinetograph/conditioning",
            description="Fix frames of a clip to pictures: the sampler fills in the others. For families "
            "with frames on the batch axis, such as SVD and ExVideo.",
            search_aliases=["keyframes", "first last frame", "inpaint frames", "frame interpolation"],
            inputs=[
                io.Latent.Input("latent", tooltip="The clip that will be sampled."),
                io.Vae.Input("vae", tooltip="VAE of the model that will sample."),
                io.Image.Input("images", tooltip="One picture for each frame number, in that order."),
                io.String.Input(
                    "frames",
                    default="0",
                    tooltip="Frame numbers from 0, such as 0, 31; negative ones count from the end: -1 is "
                    "the last.",
                ),
                fit_input(),
            ],
            outputs=[io.Latent.Output("LATENT", tooltip="The clip with its pinned frames, for a sampler.")],
        )

    @classmethod
    def validate_inputs(cls, frames=None) -> bool | str:
        """Refuse text that is no list of frame numbers; whether they fit the clip is known when it is."""
        try:
            if frames is not None:
                parse_frames(frames)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(cls, latent, vae, images, frames, fit) -> io.NodeOutput:
        clip = read_clip(latent, vae, "Pin Frames")
        numbers = resolve_frames(parse_frames(frames), clip.num_frames)
        if len(numbers) != images.shape[0]:
            raise ValueError(
                f"One picture per frame number: got {images.shape[0]} pictures for {len(numbers)} numbers in "
                f"{frames!r}."
            )
        bar = progress.steps(len(images))
        pinned = clip.encode(vae, fit_image(images[..., :3], *clip.pixel_size(vae), fit, bar.advance))
        samples = pin_frames(clip.samples_nchw, pinned, numbers, clip.num_frames)
        mask = pin_mask(latent.get("noise_mask"), clip.samples_nchw, numbers, clip.num_frames)
        return io.NodeOutput({**latent, "samples": samples, "noise_mask": mask})


NODES = [SVDConditioning, PinFrames]
