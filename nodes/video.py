"""Frames to a video file."""

from datetime import datetime

from ..modules.videofile.errors import in_our_words
from ..modules.videofile.metadata import read_notes
from ..modules.videofile.naming import fill_prefix
from ..modules.videofile.probe import usable_formats
from ..modules.videofile.request import check_request, read_audio, read_encoding, request_problem
from ..modules.videofile.writer import Job, write_clip
from .host import files, media, progress, results
from .host.api import io
from .host.checks import checked, guarded, still_to_come

CHUNK = 8  # frames between two looks at progress and Cancel


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
                *media.clip_inputs(usable_formats()),
                io.Boolean.Input("pingpong", default=False, tooltip="Play forwards, then backwards."),
                *media.file_inputs(),
            ],
            outputs=media.file_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, frame_rate=None, filename_prefix=None, *, format=None) -> bool | str:  # noqa: A002
        """Refuse what cannot be encoded or named when the prompt is posted."""
        return request_problem(format, frame_rate, filename_prefix, files.output_directory()) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Write the file again when the one that was reported is gone."""
        return results.times_gone()

    @classmethod
    def check_lazy_status(cls, **inputs) -> list[str]:
        """Look at name, format and sound before anything is computed for the clip."""
        wanted = still_to_come(cls, inputs, ("images",))
        chosen, sound = inputs["format"]["format"][0], read_audio(inputs.get("audio"))
        root = files.output_directory()
        check_request(chosen, sound, inputs["filename_prefix"], cls.hidden.prompt, root)
        return wanted

    @classmethod
    @checked
    def execute(
        cls, images, frame_rate, loop_count, filename_prefix, format, pingpong, save_output, save_metadata,
        trim_to_audio, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        encoding = read_encoding(format, frame_rate, loop_count, pingpong)
        root = files.result_root(not save_output)
        prefix = fill_prefix(filename_prefix, cls.hidden.prompt, datetime.now(), root)
        with in_our_words():
            place = files.save_path(prefix, images.shape[2], images.shape[1], not save_output)
        folder, name, counter, subfolder = place
        notes = read_notes(*media.workflow_of(cls, save_metadata))
        job = Job(
            folder, name, encoding, counter, read_audio(audio), trim_to_audio, notes, len(images),
            progress.check_interrupted,
        )  # fmt: skip
        writer = write_clip(job, images.split(CHUNK), progress.steps(len(images)).advance)
        results.remember(writer.path)
        return media.saved_video(
            writer.path, subfolder, not save_output, encoding.format.name, frame_rate, writer.said
        )


NODES = [VideoCombine]
