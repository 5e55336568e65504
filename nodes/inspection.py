"""What is in a weight file."""

import json

from ..modules.doctor import examine
from ..modules.weights.files import FileIdentity, file_identity
from .checks import checked, guarded
from .host.api import io, ui
from .pipeline import models


class ModelDoctor(io.ComfyNode):
    """Names family, variant and key dialect of a checkpoint and counts its keys, from its header alone."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographModelDoctor",
            display_name="Model Doctor",
            category="kinetograph/loaders",
            description="Say what a checkpoint or a LoRA file is, whether it is complete, where it belongs and which node "
            "loads it. Reads the header only, so it is instant for any size.",
            search_aliases=["inspect checkpoint", "model info", "which model is this", "missing keys"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.list_models(),
                    tooltip="A weight file or diffusers folder in diffusion_models, checkpoints, vae, "
                    "text_encoders, clip_vision, loras, CogVideo or SVD.",
                )
            ],
            outputs=[
                io.String.Output("report", display_name="report", tooltip="The findings, for people."),
                io.String.Output(
                    "json",
                    display_name="json",
                    tooltip="The findings, for programs: family, variant, dialect, keys, matched, missing, "
                    "unexpected, dtype, parameters, folder, node, limits, published, sha256; of a LoRA file lora, too.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Say where a model goes that is not there; what is wrong with one that is there stands in the report."""
        try:
            if model is not None:
                models.find_model(model)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_) -> list[FileIdentity]:
        """Look again when a file was replaced under the same name."""
        path = models.find_model(model)
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [file_identity(file) for file in inside]

    @classmethod
    @checked
    def execute(cls, model: str) -> io.NodeOutput:
        report = examine(models.find_model(model))
        text = report.to_text()
        return io.NodeOutput(text, json.dumps(report.to_json()), ui=ui.PreviewText(text))


NODES = [ModelDoctor]
