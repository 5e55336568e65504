"""Layers added to a MODEL for longer clips, or for other motion, than it was trained on."""

from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import exvideo as extension


class ExVideoPatch(io.ComfyNode):
    """Extends SVD to 128 frames and CogVideoX 5B to 129 (ExVideo, arXiv 2406.14130); what comes in stays as it is."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographExVideoPatch",
            display_name="ExVideo Patch",
            category="kinetograph/motion",
            description="Extend an SVD model to 128 frames with ExVideo's temporal layers (learned positions and a "
            "convolution over space and time), or CogVideoX 5B to 129 with its LoRA.",
            search_aliases=["exvideo", "long video", "svd 128 frames", "cogvideox 129 frames"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SVD model, from SVD Loader or of the host's image only checkpoint loader, or CogVideoX "
                    "5B from CogVideoX Loader.",
                ),
                io.Combo.Input(
                    "exvideo",
                    options=extension.list_files(),
                    tooltip="ExVideo file: for SVD (528 tensors) in SVD, diffusion_models or checkpoints; for CogVideoX "
                    "5B (a LoRA of 336 modules) in loras.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", tooltip="The model with ExVideo's layers, or with its LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, exvideo=None) -> bool | str:
        """Read the header when the prompt is posted: a wrong file is an error before anything runs."""
        return extension.post_problem(exvideo) or True

    @classmethod
    def fingerprint_inputs(cls, exvideo=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return extension.fingerprint(exvideo)

    @classmethod
    @checked
    def execute(cls, model, exvideo) -> io.NodeOutput:
        return io.NodeOutput(extension.extend(model, exvideo, "ExVideo Patch"))


NODES = [ExVideoPatch]
