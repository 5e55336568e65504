"""Layers added to a MODEL for longer clips, or for other motion, than it was trained on."""

from ..modules.families import SVD
from ..modules.families.svd import EXVIDEO
from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import loading, models


class ExVideoPatch(io.ComfyNode):
    """Extends SVD to 128 frames (ExVideo, arXiv 2406.14130); the model that comes in stays as it is."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographExVideoPatch",
            display_name="ExVideo Patch",
            category="kinetograph/motion",
            description="Extend an SVD model to 128 frames with ExVideo's temporal layers: learned positions and a "
            "convolution over space and time.",
            search_aliases=["exvideo", "long video", "svd 128 frames"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SVD model, from SVD Loader, or of the host's image only checkpoint loader.",
                ),
                io.Combo.Input(
                    "exvideo",
                    options=models.list_parts(SVD, EXVIDEO.part.kind),
                    tooltip="ExVideo file (528 tensors) in SVD, diffusion_models or checkpoints.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The model with ExVideo's layers in place of its own.")
            ],
        )

    @classmethod
    def validate_inputs(cls, exvideo=None) -> bool | str:
        """Read the header when the prompt is posted: a wrong file is an error before anything runs."""
        return loading.add_on_problem(SVD, exvideo, EXVIDEO.part.kind) or True

    @classmethod
    def fingerprint_inputs(cls, exvideo=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        if exvideo is None:
            return []
        return [*models.identity(models.find_model(exvideo, (EXVIDEO.part.kind,)))]

    @classmethod
    @checked
    def execute(cls, model, exvideo) -> io.NodeOutput:
        return io.NodeOutput(loading.add_layers(model, EXVIDEO, SVD, exvideo, "ExVideo Patch"))


NODES = [ExVideoPatch]
