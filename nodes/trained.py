"""What trainings leave behind."""

from .checks import checked, guarded
from .host import results
from .host.api import io
from .pipeline import trained_files, training_runs


class SaveTrained(io.ComfyNode):
    """Puts a finished training into the model folder that it belongs in, never over another file, and onto a MODEL."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSaveTrained",
            display_name="Save Trained",
            category="kinetograph/training",
            description="Put what was trained into the model folder where its loader looks, under a name that is not taken. "
            "With a model connected it is put on at once: one graph trains, saves and samples.",
            search_aliases=["save lora", "export lora", "save motion module", "save training"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "run", default="", tooltip="run of Train Video Model, or the name of an earlier run."
                ),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="Name of the file, without folder and suffix; empty: the run's. A number comes behind a taken one.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength on the MODEL; ExVideo's layers have none.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="A model to put it on, such as the one that was trained: it stays, a changed copy comes out.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The model with what was trained; nothing without a MODEL."),
                io.String.Output(
                    "filename",
                    display_name="filename",
                    tooltip="Its name, as the lists of the loaders have it.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Where the file lies, and what it changed of the MODEL.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, run=None, filename=None) -> bool | str:
        """Refuse names that lead elsewhere; whether a run is there is known when it runs."""
        problem = training_runs.name_problem(filename or None)
        return (problem and problem.replace("name", "filename", 1)) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Save again when the file that was reported is gone."""
        return results.times_gone()

    @classmethod
    @checked
    def execute(cls, run, filename, strength, model=None) -> io.NodeOutput:
        return trained_files.save(run, filename, model, strength)


NODES = [SaveTrained]
