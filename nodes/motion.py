"""What is added to a MODEL so that it moves longer or otherwise than it was trained to."""

from pathlib import Path

from ..modules.adoption import recognise
from ..modules.catalogue import CATALOGUE
from ..modules.families import FAMILIES, SVD
from ..modules.families.svd.exvideo import check_clip
from ..modules.weights.detect import Finding, choose
from ..modules.weights.files import FileIdentity, read_header
from ..modules.weights.load import find_source, part_identity
from .host import adoption, backend, files, patching, values
from .host.api import io
from .host.checks import checked, guarded


def examine(name: str) -> tuple[object, Finding]:
    """(path, what it is) of an ExVideo file; CheckpointError unless it is a complete one."""
    path = files.find_model(name, ("extension",))
    return path, choose(read_header(path), FAMILIES, SVD, "extension")


def is_others(path: Path) -> bool:
    """Whether a file surely holds no ExVideo."""
    return CATALOGUE.is_others(path, SVD.id, "extension")


def check_sizes(finding: Finding, model) -> None:
    """ValueError unless the layers fit the model's: both name their channels per level."""
    ours, theirs = (
        (config.channels, config.context_dim, config.head_dim)
        for config in (finding.config, model.model.recipe.config)
    )
    if ours != theirs:
        raise ValueError(
            f"{finding.name} is for an SVD of other sizes (channels, context, channels per head): {ours}, the model "
            f"has {theirs}. Choose the ExVideo file of this checkpoint."
        )


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
                    options=files.list_models(("extension",), pipelines=False, unless=is_others),
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
        try:
            examine(exvideo)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, exvideo=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return [] if exvideo is None else [*part_identity(files.find_model(exvideo, ("extension",)))]

    @classmethod
    @checked
    def execute(cls, model, exvideo) -> io.NodeOutput:
        path = files.find_model(exvideo, ("extension",))
        source = find_source(path, FAMILIES, SVD, "extension", backend.maps_weights())
        finding = source.finding
        model = adoption.own_model(model, "ExVideo Patch", {SVD.id: SVD}, recognise)
        check_sizes(finding, model)

        layers = patching.Layers(
            finding.part, model.model.recipe.config, source.fill, source.check, source.notes
        )
        longer = patching.swap_layers(model, layers, check_clip)
        return io.NodeOutput(values.with_native_size(longer, finding.config.native_size))


NODES = [ExVideoPatch]
