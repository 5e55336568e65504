"""Data sets for trainings."""

from ..modules.training.recipe import Data
from ..modules.weights.files import FileIdentity
from .checks import check_choice, check_known, checked, guarded
from .host.api import io, ui
from .pipeline import datasets
from .widgets import MAX_FRAMES, MAX_SIZE

USUAL = Data("")


class TrainingData(io.ComfyNode):
    """Chooses a data folder and what is cut from its clips; opens every file and says what is left out and why."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographTrainingData",
            display_name="Training Data",
            category="kinetograph/training",
            description="Clips and captions to train on: a folder below ComfyUI's input folder, in any of the usual formats. "
            "Says how many clips are used, and which are left out and why.",
            search_aliases=[
                "dataset",
                "training set",
                "captions",
                "webvid",
                "metadata.jsonl",
                "aspect buckets",
            ],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=datasets.list_folders(),
                    tooltip="A folder below ComfyUI's input folder. Put it there and refresh the list (press R).",
                ),
                io.Combo.Input(
                    "format",
                    options=list(datasets.FORMATS),
                    default=USUAL.format,
                    tooltip="auto: by what lies there. webvid: a CSV; normal: a JSON list; diffusers: metadata.jsonl; "
                    "captions: clip.mp4 with clip.txt; paths: metadata.json of ExVideo.",
                ),
                _size("width", "Pixels of a clip across; with buckets or a token length its area counts."),
                _size("height", "Pixels of a clip down; with buckets or a token length its area counts."),
                io.Int.Input(
                    "frames",
                    default=USUAL.frames,
                    min=1,
                    max=MAX_FRAMES,
                    tooltip="Frames of a clip; 1 trains on pictures. A file with fewer is left out, never stretched.",
                ),
                _pace(),
                _sizes(),
                io.Combo.Input(
                    "random_frames",
                    options=["none", "easyanimate", "fun"],
                    default=USUAL.random_frames,
                    tooltip="Shorter clips in between, as EasyAnimate (4, 8, ...) or CogVideoX-Fun (5, 9, ...) draw them.",
                ),
                io.Combo.Input(
                    "camera",
                    options=list(datasets.CAMERAS),
                    default=datasets.NO_CAMERA,
                    tooltip="A movement laid over every clip, for a MotionLoRA from clips that have none.",
                ),
                io.Boolean.Input(
                    "flip",
                    default=USUAL.flip,
                    tooltip="Mirror half of the clips; never those whose captions name a side or a turn.",
                ),
                io.Combo.Input(
                    "masks",
                    options=["none", "fun"],
                    default=USUAL.masks,
                    tooltip="fun: the masks of CogVideoX-Fun's inpainting (InP), drawn anew for each cut.",
                ),
                _further(),
            ],
            outputs=[
                io.String.Output(
                    "data", display_name="data", tooltip="For Train Video Model: folder and choices, in JSON."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="What is used, at which sizes, and what is left out and why.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        folder=None,
        format=None,
        *,
        pace=None,
        sizes=None,
        further=None,  # noqa: A002
    ) -> bool | str:
        """Read the lists of the folder when the prompt is posted; files are opened when the node runs."""
        try:
            check_choice("format", format, datasets.FORMATS)
            check_known("pace", pace, datasets.PACES)
            check_known("sizes", sizes, datasets.SIZES)
            check_known("further", further, datasets.FURTHER)
        except ValueError as error:
            return str(error)
        return datasets.post_problem(folder, format) or True

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_) -> list[FileIdentity]:
        """Look again when anything in the folder changed."""
        return datasets.fingerprint(folder)

    @classmethod
    @checked
    def execute(
        cls,
        folder,
        format,
        width,
        height,
        frames,
        pace,
        sizes,
        random_frames,
        camera,
        flip,
        masks,
        further,  # noqa: A002
    ) -> io.NodeOutput:
        data, report = datasets.describe(
            {
                **{"folder": folder, "format": format, "width": width, "height": height, "frames": frames},
                **{"pace": pace, "sizes": sizes, "random_frames": random_frames, "camera": camera},
                **{"flip": flip, "masks": masks, "further": further},
            }
        )
        return io.NodeOutput(data, report, ui=ui.PreviewText(report))


def _size(name: str, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=getattr(USUAL, name), min=16, max=MAX_SIZE, step=8, tooltip=tooltip)


def _share(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=getattr(USUAL, name), min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def _pace() -> io.DynamicCombo.Input:
    every = io.Int.Input("stride", default=1, min=1, max=1000, tooltip="1: all frames; 4: every fourth one.")
    rate = io.Float.Input(
        "fps", default=8.0, min=0.1, max=240.0, step=0.01, tooltip="Frames per second that a clip plays at."
    )
    return io.DynamicCombo.Input(
        "pace",
        options=[
            io.DynamicCombo.Option(datasets.STRIDE, [every]),
            io.DynamicCombo.Option(datasets.RATE, [rate]),
        ],
        tooltip="Which frames of a file make a clip: every n-th one, or as many a second, by the file's own rate.",
    )


def _sizes() -> io.DynamicCombo.Input:
    crop = io.Combo.Input(
        "crop", options=["centre", "random"], default=USUAL.crop, tooltip="What of a picture is kept."
    )
    tokens = io.Int.Input(
        "token_size",
        default=512,
        min=16,
        max=MAX_SIZE,
        tooltip="A sample has as many tokens as a clip of this size and of all frames: larger ones get fewer frames.",
    )
    images = io.Int.Input(
        "image_size",
        default=1024,
        min=0,
        max=MAX_SIZE,
        tooltip="Side of pictures beside clips; 0: as the clips.",
    )
    return io.DynamicCombo.Input(
        "sizes",
        options=[
            io.DynamicCombo.Option(datasets.ONE_SIZE, [crop]),
            io.DynamicCombo.Option(datasets.BUCKETS, [crop]),
            io.DynamicCombo.Option(datasets.TOKENS, [crop, tokens, images]),
        ],
        tooltip="One size for all; buckets of about its area and each clip's own aspect; or CogVideoX-Fun's token length, "
        "which mixes high and low resolution.",
    )


def _number(
    name: str, kind: type[io.Int.Input] | type[io.Float.Input], low: float, high: float, tooltip: str
) -> io.Input:
    return kind(name, default=getattr(USUAL, name), min=low, max=high, tooltip=tooltip)  # type: ignore[arg-type]


def _further() -> io.DynamicCombo.Input:
    told = "that it is told of every clip; 0: each clip's own"
    chosen = [
        _number("variants", io.Int.Input, 1, 100, "Different cuts of each clip that are kept."),
        _number("video_repeat", io.Int.Input, 1, 1000, "A clip counts so often among pictures."),
        _share("start", "Part of each file in front of which nothing is taken."),
        _share("end", "Part of each file behind which nothing is taken."),
        io.Combo.Input(
            "begin",
            options=["random", "first"],
            default=USUAL.begin,
            tooltip="Where in a file a clip starts: anywhere, or always at its beginning (ExVideo).",
        ),
        _share("dropout", "Part of the captions left out, for guidance."),
        _number(
            "image_dropout",
            io.Float.Input,
            0.0,
            0.33,
            "SVD: part of the pictures left out, each way and both.",
        ),
        io.Boolean.Input(
            "image_noise", default=USUAL.image_noise, tooltip="Noise on the picture that a clip starts from."
        ),
        _number("told_fps", io.Float.Input, 0.0, 240.0, f"SVD: the rate {told}."),
        _number("told_bucket", io.Float.Input, 0.0, 1023.0, f"SVD: the motion {told} among the data set's."),
    ]
    return io.DynamicCombo.Input(
        "further",
        options=[io.DynamicCombo.Option(datasets.USUAL, []), io.DynamicCombo.Option(datasets.OWN, chosen)],
        tooltip="What is seldom changed.",
    )


NODES = [TrainingData]
