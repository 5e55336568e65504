"""What is in a weight file, told in ComfyUI."""

import json

from ..modules.doctor import examine
from ..modules.weights.files import FileIdentity, file_identity
from .host import files
from .host.api import io, ui
from .host.checks import checked, guarded


class ModelDoctor(io.ComfyNode):
    """Names family, variant and key dialect of a checkpoint and counts its keys, from its header alone."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographModelDoctor",
            display_name="Model Doctor",
            category="kinetograph/loaders",
            description="Say what a checkpoint is, whether it is complete, where it belongs and which node "
            "loads it. Reads the header only, so it is instant for any size.",
            search_aliases=["inspect checkpoint", "model info", "which model is this", "missing keys"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "model",
                    options=files.list_models(files.FOLDERS),
                    tooltip="A weight file or diffusers folder in diffusion_models, checkpoints, vae, "
                    "text_encoders, clip_vision, CogVideo or SVD.",
                )
            ],
            outputs=[
                io.String.Output("report", display_name="report", tooltip="The findings, for people."),
                io.String.Output(
                    "json",
                    display_name="json",
                    tooltip="The findings, for programs: family, variant, dialect, keys, matched, missing, "
                    "unexpected, dtype, parameters, folder, node.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Say where a model goes that is not there; what is wrong with one that is there stands in the report."""
        try:
            if model is not None:
                files.find_model(model, files.FOLDERS)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_) -> list[FileIdentity]:
        """Look again when a file was replaced under the same name."""
        path = files.find_model(model, files.FOLDERS)
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [file_identity(file) for file in inside]

    @classmethod
    @checked
    def execute(cls, model: str) -> io.NodeOutput:
        report = examine(files.find_model(model, files.FOLDERS))
        text = report.to_text()
        return io.NodeOutput(text, json.dumps(report.to_json()), ui=ui.PreviewText(text))


NODES = [ModelDoctor]
