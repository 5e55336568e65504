"""Inputs that several nodes ask for, in the same words."""

from collections.abc import Iterable

from ..modules.families.family import Family, Kind
from ..modules.sampling.guidance import CLOCKS
from ..modules.videofile.formats import VideoFormat
from ..modules.videofile.options import Amount, Choice, Option
from .checks import check_known, check_socket
from .host.api import io
from .pipeline import loading, models

# pixels on a side, pixel frames
MAX_SIZE, MAX_FRAMES = 4096, 8193
MAX_CFG = 100.0
CFG_TIP = "Classifier-free guidance scale; 1 turns it off and halves the work."


def size_input(name: str, default: int, tooltip: str) -> io.Int.Input:
    """Pixels on a side of a clip, 0 for what the node finds out."""
    return io.Int.Input(name, default=default, min=0, max=MAX_SIZE, tooltip=tooltip)


def fit_input() -> io.Combo.Input:
    """How a picture of another size becomes one of the clip's."""
    return io.Combo.Input(
        "fit",
        options=["crop", "stretch", "exact"],
        default="crop",
        tooltip="crop: cover the size and cut what hangs over; stretch: squeeze to the size; "
        "exact: refuse an image of another size.",
    )


def media_input(name: str, tooltip: str) -> io.MultiType.Input:
    """Frames that may come as an IMAGE or as a VIDEO."""
    return io.MultiType.Input(name, types=[io.Image, io.Video], tooltip=tooltip)


def part_input(family: Family, kind: Kind, own: str, kinds: tuple[Kind, ...], tooltip: str) -> io.Combo.Input:
    """Where a part comes from: `own`, which is with the model, or a file from where `kinds` of parts lie."""
    options = [own, *models.list_parts(family, kind, kinds)]
    return io.Combo.Input(kind, options=options, default=own, tooltip=tooltip)


def weight_dtype_input() -> io.Combo.Input:
    """How the diffusion network's weights are kept."""
    return io.Combo.Input(
        "weight_dtype",
        options=list(loading.WEIGHT_DTYPES),
        default="auto",
        advanced=True,
        tooltip="How the diffusion model's weights are kept. auto: as ComfyUI chooses for this device; fp8 halves "
        "their memory and changes the picture a little.",
    )


def posterior_input() -> io.DynamicCombo.Input:
    """How the VAE's answer is read: a seeded draw from its posterior, or the mean."""
    seed = io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Seed of the draw.")
    return io.DynamicCombo.Input(
        "posterior",
        options=[io.DynamicCombo.Option("sample", [seed]), io.DynamicCombo.Option("mean", [])],
        tooltip="How the VAE's answer is read: a draw, as CogVideoX was trained, or its mean.",
    )


def posterior_problem(chosen: object, name: str, image: object, kind: str = "IMAGE") -> str | None:
    """Why a choice of `posterior_input` cannot be met, or what is in the input `name` is of no such kind; or None."""
    try:
        check_known("posterior", chosen, ("sample", "mean"))
        if image is not None:
            check_socket(name, kind, image)
    except ValueError as error:
        return str(error)
    return None


def guidance_options() -> list[tuple[str, list[io.Input]]]:
    """Ways to guide a clip, with the widgets of their numbers."""
    clock = io.Combo.Input(
        "clock",
        options=list(CLOCKS),
        tooltip="step: by the share of steps done, as CogVideoX's own code; timestep: as diffusers.",
    )
    return [
        ("constant", [_scale("cfg", 6.0, CFG_TIP)]),
        ("dynamic cosine", [_scale("cfg", 6.0, "Guidance rises from 1 to 1 + cfg over the run."), clock]),
        (
            "per-frame linear",
            [
                _scale("min_cfg", 1.0, "Scale at the first frame."),
                _scale("max_cfg", 6.0, "Scale at the last frame."),
            ],
        ),
    ]


def _scale(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=MAX_CFG, step=0.1, tooltip=tooltip)


def long_clip_input() -> io.DynamicCombo.Input:
    """What long clips (ExVideo) may need: less memory, and contrast that does not fade."""
    return io.DynamicCombo.Input(
        "long_clip",
        optional=True,
        options=[
            io.DynamicCombo.Option("off", []),
            io.DynamicCombo.Option(
                "on",
                [
                    io.Boolean.Input(
                        "sequential_cfg",
                        default=True,
                        tooltip="Run the positive and the negative pass one after the other: half the memory.",
                    ),
                    io.Boolean.Input(
                        "equalise_frames",
                        default=True,
                        tooltip="Bring every frame's latents to the clip's mean and spread, as ExVideo does.",
                    ),
                    io.Float.Input(
                        "contrast_scale",
                        default=1.2,
                        min=0.1,
                        max=4.0,
                        step=0.05,
                        tooltip="Multiplies the finished latents; ExVideo: 1.2.",
                    ),
                ],
            ),
        ],
        tooltip="Options for long clips, such as ExVideo's 128 frames; off for all others.",
    )


def rate_input() -> io.Float.Input:
    """Frames per second of a file."""
    return io.Float.Input(
        "frame_rate",
        default=8.0,
        min=0.1,
        max=240.0,
        step=0.001,  # the page rounds to it: 23.976 would become 23.98
        tooltip="Frames per second. CogVideoX: 8, 1.5: 16. A gif plays at most 50.",
    )


def clip_inputs(formats: Iterable[VideoFormat]) -> list[io.Input]:
    """What every node that writes a clip asks: rate, repeats, name and format."""
    return [
        rate_input(),
        io.Int.Input(
            "loop_count",
            default=0,
            min=0,
            max=100,
            tooltip="Extra repeats of the clip. At 0, gif and webp play forever and videos play once.",
        ),
        io.String.Input(
            "filename_prefix",
            default="video/Kinetograph",
            tooltip="Name of the file, with folders below the output folder. %date:yyyy-MM-dd%, %Node.widget% "
            "(a node's title and a widget of it), %year%, %month%, %day%, %width% and %height% are filled in.",
        ),
        format_input(formats),
    ]


def file_inputs() -> list[io.Input]:
    """What every node that writes a clip asks of the file: where, with which notes and sound."""
    return [
        io.Boolean.Input(
            "save_output",
            default=True,
            tooltip="Keep the file. Off: a preview in the temporary folder.",
        ),
        io.Boolean.Input(
            "save_metadata",
            default=True,
            tooltip="Store the workflow in the file; dropping the file into ComfyUI brings it back.",
        ),
        io.Boolean.Input(
            "trim_to_audio",
            default=False,
            tooltip="End the clip where the sound ends, if that is earlier.",
        ),
        io.Audio.Input(
            "audio", optional=True, tooltip="Sound, cut or filled with silence to the clip's length."
        ),
    ]


def file_outputs() -> list[io.Output]:
    """What every node that writes a clip gives."""
    return [
        io.Video.Output("video", tooltip="The file as a VIDEO. The host cannot decode webp files again."),
        io.String.Output("filename", tooltip="Name of the file below its folder."),
    ]


def format_input(formats: Iterable[VideoFormat]) -> io.DynamicCombo.Input:
    """A DynamicCombo of formats, each with its own bounded options."""
    choices = [io.DynamicCombo.Option(name, parts) for name, parts in format_options(formats)]
    tooltip = "Container and encoder. h264-mp4 plays everywhere; ffv1-mkv loses nothing."
    return io.DynamicCombo.Input("format", options=choices, tooltip=tooltip)


def format_options(formats: Iterable[VideoFormat]) -> list[tuple[str, list[io.Input]]]:
    """Names of formats, with the widgets of their options."""
    return [(entry.name, [_option(option) for option in entry.options]) for entry in formats]


def _option(option: Option) -> io.Input:
    """The widget for an option: a list of words, a bounded number, or a switch."""
    if isinstance(option, Choice):
        return io.Combo.Input(
            option.name, options=list(option.words), default=option.default, tooltip=option.tooltip
        )
    if isinstance(option, Amount):
        return io.Int.Input(
            option.name, default=option.default, min=option.low, max=option.high, tooltip=option.tooltip
        )
    return io.Boolean.Input(option.name, default=option.default, tooltip=option.tooltip)
