"""Frames to a video file."""

from ..modules.videofile.probe import usable_formats
from .checks import checked, guarded, still_to_come
from .host import results
from .host.api import io
from .pipeline import saving
from .widgets import clip_inputs, file_inputs, file_outputs


class VideoCombine(io.ComfyNode):
    """Writes a clip to a file and shows it; the file appears only when it is complete and was read back."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoCombine",
            display_name="Video Combine",
            category="kinetograph/video",
            description="Combine frames, and sound if there is any, into a video file that was read back and "
            "counted.",
            search_aliases=["save video", "vhs video combine", "gif", "webm", "mp4", "export video"],
            inputs=[
                io.Image.Input("images", lazy=True, tooltip="Frames of one size, in order."),
                *clip_inputs(usable_formats()),
                io.Boolean.Input("pingpong", default=False, tooltip="Play forwards, then backwards."),
                *file_inputs(),
            ],
            outputs=file_outputs(),
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
        wanted = still_to_come(cls, inputs, ("images",))
        saving.check_before_frames(inputs, cls.hidden.prompt)
        return wanted

    @classmethod
    @checked
    def execute(
        cls, images, frame_rate, loop_count, filename_prefix, format, pingpong, save_output, save_metadata,
        trim_to_audio, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        clip_file = saving.ClipFile(
            frame_rate,
            loop_count,
            filename_prefix,
            format,
            save_output,
            save_metadata,
            trim_to_audio,
            audio,
            pingpong,
        )
        return saving.save_frames(cls, clip_file, images)


NODES = [VideoCombine]
