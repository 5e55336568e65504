"""Latents back to frames, a few at a time."""

from ..modules.videofile.probe import usable_formats
from .checks import checked, guarded, still_to_come
from .host import results
from .host.api import io
from .pipeline import saving
from .pipeline.decoding import decode
from .widgets import clip_inputs, file_inputs, file_outputs


class VAEDecodeChunked(io.ComfyNode):
    """Decodes a clip with memory that does not grow with its length."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEDecodeChunked",
            display_name="VAE Decode (Chunked)",
            category="kinetograph/video",
            description="Decode a long clip a few latent frames at a time: exactly where the VAE is causal, with "
            "blended seams where it is not. When memory runs out it goes on in smaller pieces.",
            search_aliases=["vae decode video", "decode tiled temporal"],
            inputs=[
                io.Vae.Input(
                    "vae", tooltip="Video VAE of the model's family, or any VAE with frames as batch."
                ),
                io.Latent.Input("latent", tooltip="Latent clip to decode."),
                io.Int.Input(
                    "chunk",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Frames decoded at once by VAEs that are not causal; 0: as many as memory allows. A "
                    "causal VAE such as CogVideoX's always takes its own two latents.",
                ),
                io.Int.Input(
                    "overlap",
                    default=2,
                    min=0,
                    max=64,
                    tooltip="Frames blended between chunks of a VAE that is not causal.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", tooltip="All frames, in order."),
                io.String.Output(
                    "report",
                    tooltip="How visible the seams between chunks are: the largest jump at a border beside the "
                    "median jump inside. Also what was assumed about the number of frames.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(cls, vae, latent, chunk, overlap) -> io.NodeOutput:
        return io.NodeOutput(*decode(vae, latent, "VAE Decode (Chunked)", chunk, overlap))


class VAEDecodeToVideo(io.ComfyNode):
    """Decodes straight into the encoder: however long the clip, a few frames are in memory."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEDecodeToVideo",
            display_name="VAE Decode To Video",
            category="kinetograph/video",
            essentials_category="Video Tools",
            description="Decode a clip and write it to a file as it comes; memory does not grow with its length.",
            search_aliases=["stream decode", "long video", "save video"],
            inputs=[
                io.Vae.Input(
                    "vae",
                    lazy=True,
                    tooltip="Video VAE of the model's family, or any VAE with frames as batch.",
                ),
                io.Latent.Input("latent", lazy=True, tooltip="One latent clip."),
                *clip_inputs(usable_formats()),
                *file_inputs(),
            ],
            outputs=[
                *file_outputs(),
                io.String.Output(
                    "report", tooltip="What was assumed about the number of frames, if anything."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, frame_rate=None, filename_prefix=None, *, format=None) -> bool | str:  # noqa: A002
        """Refuse what cannot be encoded or named when the prompt is posted."""
        return saving.post_problem(format, frame_rate, filename_prefix) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Write the file again when the one that was reported is gone."""
        return results.times_gone()

    @classmethod
    def check_lazy_status(cls, **inputs) -> list[str]:
        """Look at name, format and sound before anything is computed for the clip."""
        wanted = still_to_come(cls, inputs, ("vae", "latent"))
        saving.check_before_frames(inputs, cls.hidden.prompt)
        return wanted

    @classmethod
    @checked
    def execute(
        cls, vae, latent, frame_rate, loop_count, filename_prefix, format, save_output, save_metadata,
        trim_to_audio, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        clip_file = saving.ClipFile(
            frame_rate, loop_count, filename_prefix, format, save_output, save_metadata, trim_to_audio, audio
        )
        return saving.save_latent(cls, clip_file, vae, latent, "VAE Decode To Video")


NODES = [VAEDecodeChunked, VAEDecodeToVideo]
