"""Lists of clips and captions, kept as a data set."""

from .checks import guarded
from .host import results
from .host.api import io
from .pipeline import clip_lists, training_runs
from .widgets import media_input


class SaveTrainingData(io.ComfyNode):
    """Writes lists of clips and captions of ComfyUI's dataset nodes into a data folder, without loss."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSaveTrainingData",
            display_name="Save Training Data",
            category="kinetograph/training",
            description="Lists of clips or pictures and captions, as ComfyUI's dataset nodes give them, as a folder for Training "
            "Data. Frames are written without loss, files are copied.",
            search_aliases=["save dataset", "dataset from list", "video dataset", "image dataset"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                media_input("clips", "A list of VIDEO or IMAGE; an IMAGE of several frames is a clip."),
                io.String.Input("captions", force_input=True, tooltip="A list of as many captions."),
                io.String.Input(
                    "name",
                    default="my_clips",
                    tooltip="Folder below the input folder; others get a number behind it.",
                ),
                io.Float.Input(
                    "rate",
                    default=8.0,
                    min=0.1,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of clips that come as IMAGE.",
                ),
            ],
            outputs=[
                io.Combo.Output("folder", display_name="folder", tooltip="For folder of Training Data."),
                io.String.Output("report", display_name="report", tooltip="How many items lie where."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name=None) -> bool | str:
        """Refuse names that lead elsewhere; a list of one arrives."""
        return training_runs.name_problem(name[0] if isinstance(name, list) else name) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Write again when the folder that was reported is gone."""
        return results.times_gone()

    @classmethod
    def execute(cls, clips, captions, name, rate) -> io.NodeOutput:
        return clip_lists.save(clips, captions, name, rate)


NODES = [SaveTrainingData]
