"""What goes into a sampler besides the model: empty latents of the right size, and images to start from."""

from typing import Any

import torch

from ..modules.adoption import recognise
from ..modules.conditioning.first_frame import fit_image, pad_frames, sample_posterior
from ..modules.families import FAMILIES
from .host import adoption, values
from .host.api import io
from .host.checks import check_choice, check_known, check_number, check_socket, checked, guarded
from .host.inputs import fit_input

MAX_SIZE, MAX_FRAMES = 4096, 8193  # pixels on a side, pixel frames
MAX_GAIN = 10.0
SIZE_TIP = "Pixels: CogVideoX in steps of 16, SVD of 64. 0: what the model was trained on."
BY_ID = {family.id: family for family in FAMILIES}


class VideoLatent(io.ComfyNode):
    """An empty clip in a family's latent layout, told in pixels and frames."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoLatent",
            display_name="Video Latent",
            category="kinetograph/conditioning",
            description="Empty latent clip. Sizes and frame counts that the family cannot make are refused.",
            search_aliases=["empty latent video", "cogvideox empty latent"],
            inputs=[
                io.Combo.Input(
                    "family", options=list(BY_ID), tooltip="Family of the model that will sample."
                ),
                _size("width", 720, SIZE_TIP),
                _size("height", 480, SIZE_TIP),
                io.Int.Input(
                    "num_frames",
                    default=49,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Pixel frames. CogVideoX: one more than a multiple of 4, 49, 1.5 81 or 161; SVD 14, XT 25, "
                    "ExVideo 128. 0: what the model was trained on.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="How many clips to make at once."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only needed where a size is 0; it must be of that family.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT",
                    tooltip="Zeros of (batch, channels, frames, height, width); SVD: (frames, 4, height, width).",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, family=None, width=None, height=None, num_frames=None) -> bool | str:
        """Refuse sizes and counts that do not fold, naming the nearest that do, when the prompt is posted."""
        try:
            check_choice("family", family, BY_ID)
            check_number("width", width, 0, MAX_SIZE)
            check_number("height", height, 0, MAX_SIZE)
            check_number("num_frames", num_frames, 0, MAX_FRAMES)
            family = family or FAMILIES[0].id
            latent_shape(family, (width, height, num_frames))
            check_memory(family, (width, height, num_frames))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(cls, family, width, height, num_frames, batch_size, model=None) -> io.NodeOutput:
        asked = (width, height, num_frames)
        if model is not None:
            check_family(family, model)
        if 0 in asked:
            if model is None:
                raise ValueError(
                    f"A size of 0 means the model's own: connect a model, or set {asked} by hand."
                )
            native = values.native_size(adoption.own_model(model, "Video Latent", BY_ID, recognise))
            asked = tuple(number or own for number, own in zip(asked, native, strict=True))
        check_memory(family, asked, batch_size)
        samples = empty_clips(family, asked, batch_size)
        return io.NodeOutput({"samples": samples, "num_frames": asked[2]})


def _size(name: str, default: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=0, max=MAX_SIZE, tooltip=tooltip)


def latent_shape(family: str, asked: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(channels, frames, height, width) in latent cells of (width, height, num_frames) in pixels.

    Sizes of 0 or None (taken from the model, or linked) pass unchecked. ValueError names the nearest legal ones.
    """
    grid = BY_ID[family].grid
    width, height, num_frames = asked
    cells_w, cells_h = grid.latent_size(width or grid.multiple_hw, height or grid.multiple_hw)
    return grid.channels, grid.latent_frames(num_frames or 1), cells_h, cells_w


def check_family(family: str, model: Any) -> None:
    """ValueError when a MODEL is of another family than the one chosen by name."""
    found = adoption.family_of(model, recognise)
    if found != family:
        does = f"choose {found} here" if found in BY_ID else "connect a model of that family"
        raise ValueError(
            f"Video Latent makes latents for {family}, but the connected model is {values.label_of(model)}: {does}, "
            "or disconnect the model."
        )


def check_memory(family: str, asked: tuple[int, int, int], count: int = 1) -> None:
    """ValueError for latents that this machine could not sample: noise and latents fill its memory together."""
    channels, frames, height, width = latent_shape(family, asked)
    needed, there = 4 * count * channels * frames * height * width, values.machine_memory()
    if 2 * needed > there:
        raise ValueError(
            f"width, height, num_frames or batch_size is too large: {count} x {asked[2]} frames of "
            f"{asked[0]}x{asked[1]} are {needed / 1e9:.1f} GB of latents, with the noise {2 * needed / 1e9:.1f} GB, "
            f"and this machine has {there / 1e9:.1f} GB of memory."
        )


def empty_clips(family: str, asked: tuple[int, int, int], count: int) -> torch.Tensor:
    """Zeros for `count` clips, (b, c, t, h, w), or (b * t, c, h, w) where frames lie on the batch axis."""
    channels, frames, height, width = latent_shape(family, asked)
    if BY_ID[family].grid.frames_on_batch:
        return torch.zeros(count * frames, channels, height, width)
    return torch.zeros(count, channels, frames, height, width)


def posterior_input() -> io.DynamicCombo.Input:
    """How the VAE's answer is read: a seeded draw from its posterior, or the mean."""
    seed = io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Seed of the draw.")
    return io.DynamicCombo.Input(
        "posterior",
        options=[io.DynamicCombo.Option("sample", [seed]), io.DynamicCombo.Option("mean", [])],
        tooltip="How the VAE's answer is read: a draw, as CogVideoX was trained, or its mean.",
    )


def posterior_problem(chosen: object, name: str, image: object) -> str | None:
    """Why a choice of `posterior_input` cannot be met, or the picture in the input `name` is none; or None."""
    try:
        check_known("posterior", chosen, ("sample", "mean"))
        if image is not None:
            check_socket(name, "IMAGE", image)
    except ValueError as error:
        return str(error)
    return None


class VAEEncodeChunked(io.ComfyNode):
    """Encodes a clip for video to video, with memory that does not grow with its length."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEEncodeChunked",
            display_name="VAE Encode (Chunked)",
            category="kinetograph/conditioning",
            description="Encode a clip chunk by chunk, exactly. Frame counts that do not fold are refused.",
            search_aliases=["vae encode video", "video to video", "v2v"],
            inputs=[
                io.Vae.Input("vae", tooltip="VAE of the model's family, from its loader."),
                io.Image.Input("images", tooltip="Frames of the clip; CogVideoX: 1, 9, 17, ... 49."),
                posterior_input(),
            ],
            outputs=[
                io.Latent.Output("LATENT", tooltip="The clip as latents, for a sampler with denoise < 1.")
            ],
        )

    @classmethod
    def validate_inputs(cls, images=None, *, posterior=None) -> bool | str:
        """Refuse an unknown way to read the posterior; `images` carries the answer, so it is checked here, too."""
        return posterior_problem(posterior, "images", images) or True

    @classmethod
    @checked
    def execute(cls, vae, images, posterior) -> io.NodeOutput:
        values.vae_grid(vae, "VAE Encode (Chunked)")
        samples = sample_posterior(*vae.encode_moments(images), seed=posterior.get("seed"))
        return io.NodeOutput({"samples": samples, "num_frames": images.shape[0]})


class ImageToVideoConditioning(io.ComfyNode):
    """Gives an image-to-video checkpoint the picture that the clip starts from."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographImageToVideoConditioning",
            display_name="Image To Video Conditioning",
            category="kinetograph/conditioning",
            description="Encode a first frame and attach it to both prompts, for I2V checkpoints.",
            search_aliases=["i2v", "first frame", "start image"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Prompt of what to show."),
                io.Conditioning.Input("negative", tooltip="Prompt of what to avoid; may be empty."),
                io.Vae.Input("vae", tooltip="VAE of the model's family."),
                io.Image.Input("image", tooltip="The first frame. Of several images only the first is used."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and length."
                ),
                fit_input(),
                posterior_input(),
                io.Float.Input(
                    "latent_gain",
                    default=1.0,
                    min=0.0,
                    max=MAX_GAIN,
                    step=0.0001,
                    advanced=True,
                    tooltip="Multiplies the image latents. 1.0 is as trained; diffusers feeds 1.5-5B-I2V "
                    "1/0.7 = 1.4286.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="Positive prompt with the image."),
                io.Conditioning.Output("negative", tooltip="Negative prompt with the image."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, *, posterior=None) -> bool | str:
        """Refuse an unknown way to read the posterior; `image` carries the answer, so it is checked here, too."""
        return posterior_problem(posterior, "image", image) or True

    @classmethod
    @checked
    def execute(cls, positive, negative, vae, image, latent, fit, posterior, latent_gain) -> io.NodeOutput:
        grid = values.vae_grid(vae, "Image To Video Conditioning")
        if grid.frames_on_batch:
            raise ValueError(
                "Image To Video Conditioning is for video VAEs such as CogVideoX's: for SVD use SVD Conditioning."
            )
        samples = values.samples_of(latent)
        values.check_vae(vae, samples, "Image To Video Conditioning")
        *_, latent_frames, height, width = samples.shape
        pixels = fit_image(image[:1], width * grid.stride_hw, height * grid.stride_hw, fit)
        first = sample_posterior(*vae.encode_moments(pixels), seed=posterior.get("seed"))
        image_latents = pad_frames(first, latent_frames) * latent_gain
        return io.NodeOutput(
            values.set_conditioning(positive, concat_latent_image=image_latents),
            values.set_conditioning(negative, concat_latent_image=image_latents),
        )


NODES = [VideoLatent, ImageToVideoConditioning, VAEEncodeChunked]
