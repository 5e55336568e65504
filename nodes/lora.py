"""LoRA files on a MODEL, and on the text encoder that came with it."""

from ..modules.weights.files import FileIdentity
from .checks import FileNames, check_known, checked, guarded
from .host.api import io
from .pipeline import lora, lora_stack, models

COUNTS = [str(count) for count in range(1, lora.MOST + 1)]


class LoRAStack(io.ComfyNode):
    """Puts up to eight LoRA files of any dialect on a MODEL; a file that changes nothing is an error."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        files = FileNames(models.list_loras())
        rows = [_row(files, number) for number in range(1, lora.MOST + 1)]
        options = [
            io.DynamicCombo.Option(count, [part for row in rows[: int(count)] for part in row])
            for count in COUNTS
        ]
        return io.Schema(
            node_id="KinetographLoRAStack",
            display_name="LoRA Stack",
            category="kinetograph/loaders",
            essentials_category="Image Generation",
            description="Put up to eight LoRA files on a model, its text encoder and its motion modules, whoever wrote them. "
            "Says what each changes; a file that changes nothing, or only a part, is an error.",
            search_aliases=[
                "load lora",
                "cogvideox lora",
                "svd lora",
                "lora loader",
                "reward lora",
                "motion lora",
                "motiondirector",
                "domain adapter",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to change. It stays as it is; a changed copy comes out."
                ),
                io.DynamicCombo.Input("loras", options=options, tooltip="How many LoRA files."),
                io.Boolean.Input(
                    "allow_partial",
                    default=False,
                    tooltip="Take files of which a part fits this model, or whose T5 parts find no CLIP, and leave "
                    "out the rest. Off: such a file is an error.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder, for files that change it as well."
                ),
                io.Float.Input(
                    "adapter_alpha",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="For AnimateDiff's v3 domain adapter alone, times its strength. 0, as in AnimateDiff's own examples, "
                    "leaves it out; 1 goes with SparseCtrl.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The model with the LoRAs."),
                io.Clip.Output(
                    "CLIP", tooltip="The text encoder with their T5 parts; nothing without a CLIP."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="For each file: who writes such files, ranks, alpha, what was changed and what left out.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, *, loras=None) -> bool | str:
        """Read the headers when the prompt is posted: a damaged file is an error before anything runs."""
        try:
            check_known("loras", loras, COUNTS)
        except ValueError as error:
            return str(error)
        return lora.post_problem(loras) or True

    @classmethod
    def fingerprint_inputs(cls, loras=None, **_) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return lora.fingerprint(loras)

    @classmethod
    @checked
    def execute(cls, model, loras, allow_partial, clip=None, adapter_alpha=0.0) -> io.NodeOutput:
        wish = lora_stack.Wish(allow_partial, adapter_alpha)
        return io.NodeOutput(*lora_stack.stack(model, clip, lora.rows_of(loras), wish))


def _row(files: list[str], number: int) -> list[io.Input]:
    """The inputs of one file."""
    return [
        io.Combo.Input(
            f"lora_{number}",
            options=files,
            tooltip="LoRA file in the loras folder, EasyAnimate's in Personalized_Model, or a MotionLoRA in "
            "animatediff_motion_lora: that one goes to the motion modules of Motion Module Apply.",
        ),
        _strength(f"strength_{number}", "Strength for the model or its motion modules; 0 changes nothing."),
        _strength(f"text_strength_{number}", "Strength for the text encoder, where the file changes it."),
    ]


def _strength(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=-20.0, max=20.0, step=0.01, tooltip=tooltip)


NODES = [LoRAStack]
