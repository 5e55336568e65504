"""What a MODEL is, told by an attachment that travels with its clones, or read off the host's own objects.

Whoever samples, makes latents or trains asks `describe` alone, never the class of a MODEL.
"""

from dataclasses import dataclass, replace
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_sampling as host_sampling

from ...modules.families.family import FrameRule, LatentSpace, Limits, Size, Takes
from ...modules.grid import LatentGrid
from ...modules.noise import EDMNoise, Noise, Prediction, ReadNoise

ATTACHMENT = "kinetograph_video_model"
PREDICTIONS: dict[Any, Prediction] = {
    host_sampling.EPS.calculate_denoised: "epsilon",
    host_sampling.V_PREDICTION.calculate_denoised: "v",
}
SVD_SIZE = (1024, 576, 25)  # of svd_xt; the host's MODEL does not tell which release it is
SVD_NOISE = 0.02  # on its picture, where nobody says otherwise


@dataclass(frozen=True)
class VideoModel:
    """Everything that is asked of a MODEL before and around sampling."""

    # id of one of our families; of the host's own, its class
    family: str
    # as a user knows it
    label: str
    grid: LatentGrid
    # None where the process is none of ours, such as a flow
    noise: Noise | None
    latents: LatentSpace
    # (width, height, frames) in pixels that it was trained on
    native_size: Size
    limits: Limits = Limits()
    takes: Takes = "nothing"
    # standard deviation, in -1..1, of the noise on the pictures that it takes
    image_noise: float = 0.0
    frame_rule: FrameRule = FrameRule()

    @property
    def knows_neighbours(self) -> bool:
        """Whether it makes clips from text alone, of frames on the batch axis: a picture model with a motion module."""
        return self.takes == "nothing" and self.clip_axis is None and self.native_size[2] > 1

    @property
    def clip_axis(self) -> int | None:
        """The axis of the frames where a clip has one of its own; None where they lie on the batch axis."""
        return None if self.grid.frames_on_batch else 2


def attach(model: Any, description: VideoModel) -> None:
    """Have a MODEL, a clone of the caller's own, say this of itself; its clones will."""
    model.set_attachments(ATTACHMENT, description)


def describe(model: Any, node: str) -> VideoModel:
    """What a MODEL is: one of this pack, or one of the host's whose latents are pictures and whose noise is known.

    A model sampling that another node put in counts. Raises ValueError for any other MODEL, naming the way out.
    """
    said = model.get_attachment(ATTACHMENT) or _read(model, node)
    if "model_sampling" not in model.object_patches:
        return said
    return replace(said, noise=noise_of(model.get_model_object("model_sampling")))


def input_channels(model: Any) -> int | None:
    """Channels that the network of a MODEL takes; None where it does not tell."""
    channels = getattr(model.get_model_object("diffusion_model"), "in_channels", None)
    return channels if isinstance(channels, int) else None


def _read(model: Any, node: str) -> VideoModel:
    """The description of a MODEL of the host."""
    base, latents = model.model, model.get_model_object("latent_format")
    noise = noise_of(base.model_sampling)
    if latents.latent_dimensions != 2 or noise is None:
        raise ValueError(
            f"{node} takes video models, and image models such as SD1.5 and SDXL: got {type(base).__name__}. Load a "
            "checkpoint with SVD Loader or CogVideoX Loader, or sample this one with KSampler."
        )
    is_svd = isinstance(base, comfy.model_base.SVD_img2vid)
    width = 1024 if isinstance(latents, comfy.latent_formats.SDXL) else 512
    # pictures: a motion module says how many make a clip
    return VideoModel(
        family="svd" if is_svd else type(base).__name__,
        label=type(base).__name__,
        grid=_grid(latents, 8 if is_svd else 1),
        noise=noise,
        latents=LatentSpace(latents.scale_factor, *_colours(latents)),
        native_size=SVD_SIZE if is_svd else (width, width, 1),
        takes="image" if is_svd else "nothing",
        image_noise=SVD_NOISE if is_svd else 0.0,
    )


def _grid(latents: Any, patch_hw: int) -> LatentGrid:
    stride = getattr(latents, "spacial_downscale_ratio", 8)
    return LatentGrid(latents.latent_channels, 1, stride, lone_first=False, patch_hw=patch_hw)


def _colours(latents: Any) -> tuple[Any, Any]:
    """(channels, 3) and a bias for previews; grey where the host has none."""
    factors = latents.latent_rgb_factors or [[0.0] * 3] * latents.latent_channels
    bias = getattr(latents, "latent_rgb_factors_bias", None) or (0.0, 0.0, 0.0)
    return tuple(map(tuple, factors)), tuple(bias)


def noise_of(sampling: Any) -> Noise | None:
    """The noise process of a model sampling of the host; None for one that `modules/noise.py` does not know.

    Decided by the functions that it computes with: other classes of the host, and of other packs, replace single ones.
    """
    own = getattr(sampling, "noise", None)
    if isinstance(own, Noise):
        return own
    kind = type(sampling)
    prediction = PREDICTIONS.get(getattr(kind, "calculate_denoised", None))
    timestep = getattr(kind, "timestep", None)
    if prediction is None or sampling.sigma_data != 1:
        return None
    if timestep is host_sampling.ModelSamplingDiscrete.timestep:
        return ReadNoise(prediction, sampling.sigmas.cpu())
    if timestep is host_sampling.ModelSamplingContinuousEDM.timestep and prediction == "v":
        return EDMNoise(float(sampling.sigma_min), float(sampling.sigma_max))
    return None
