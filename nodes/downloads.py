"""Published models, fetched when the node runs and at no other time."""

from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io, ui
from .pipeline import downloads


class ModelDownload(io.ComfyNode):
    """Brings a published release from the hub into the model folder that it belongs in, checked to the last byte."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographModelDownload",
            display_name="Model Download",
            category="kinetograph/loaders",
            description="Fetch a published model, and what it needs beside it, into the right model folders: size and "
            "SHA-256 are checked, a broken download goes on where it ended. Opens a connection when it runs.",
            search_aliases=["download", "get model", "fetch checkpoint", "huggingface", "missing models"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "release",
                    options=list(downloads.DOWNLOADS),
                    default="SVD-XT",
                    tooltip="The published model. Its page, size and licence are shown before the first byte comes.",
                ),
                io.Boolean.Input(
                    "with_needs",
                    default=True,
                    tooltip="Fetch what it does not run without, too: VAE, text encoder and base model.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Every file with its path, bytes, SHA-256 and where the hash comes from.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, release: str | None = None) -> bool | str:
        """Say which releases there are when the name is none of them."""
        return (release is not None and downloads.problem_of(release)) or True

    @classmethod
    def fingerprint_inputs(
        cls, release: str | None = None, with_needs=True, **_
    ) -> list[FileIdentity] | list[int]:
        """Look again while a file is missing or when one was changed."""
        return downloads.identities(release or "", bool(with_needs))

    @classmethod
    @checked
    def execute(cls, release: str, with_needs: bool) -> io.NodeOutput:
        report = downloads.fetch_release(release, with_needs)
        return io.NodeOutput(report, ui=ui.PreviewText(report))


NODES = [ModelDownload]
