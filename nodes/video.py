"""Frames to a video file."""

from ..modules.video.probe import usable_formats
from ..modules.video.request import read_audio, read_encoding, request_problem
from ..modules.video.writer import Job, VideoWriter
from .host import files, media, progress
from .host.api import io

CHUNK = 8  # frames between two looks at progress and Cancel


class VideoCombine(io.ComfyNode):
    """Writes a clip to a file and shows it; the file appears only when it is complete and was read back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoCombine",
            display_name="Video Combine",
            category="kinetograph/video",
            description="Combine frames, and sound if there is any, into a video file that was read back and "
            "counted.",
            search_aliases=["save video", "vhs video combine", "gif", "webm", "mp4", "export video"],
            inputs=[
                io.Image.Input("images", tooltip="Frames of one size, in order."),
                io.Float.Input(
                    "frame_rate",
                    default=8.0,
                    min=0.1,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second. CogVideoX: 8, 1.5: 16. A gif plays at most 50.",
                ),
                io.Int.Input(
                    "loop_count",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="Extra repeats of the clip. At 0, gif and webp play forever and videos play once.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/Kinetograph",
                    tooltip="Name of the file, with folders below the output folder. %year%, %month%, %day%, "
                    "%width% and %height% are filled in.",
                ),
                media.format_input(usable_formats()),
                io.Boolean.Input("pingpong", default=False, tooltip="Play forwards, then backwards."),
                io.Boolean.Input(
                    "save_output",
                    default=True,
                    tooltip="Keep the file. Off: a preview in the temporary folder.",
                ),
                io.Boolean.Input(
                    "save_metadata",
                    default=True,
                    tooltip="Store the workflow in the file; dropping the file into ComfyUI brings it back.",
                ),
                io.Boolean.Input(
                    "trim_to_audio",
                    default=False,
                    tooltip="End the clip where the sound ends, if that is earlier.",
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Sound, cut or filled with silence to the clip's length."
                ),
            ],
            outputs=[
                io.Video.Output(
                    "video", tooltip="The file as a VIDEO. The host cannot decode webp files again."
                ),
                io.String.Output("filename", tooltip="Name of the file below its folder."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, frame_rate=None, filename_prefix=None, format=None) -> bool | str:  # noqa: A002
        """Refuse what cannot be encoded or named when the prompt is posted; the host's bounds let NaN through."""
        return request_problem(format, frame_rate, filename_prefix, files.output_directory()) or True

    @classmethod
    def execute(
        cls, images, frame_rate, loop_count, filename_prefix, format, pingpong, save_output, save_metadata,
        trim_to_audio, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        encoding = read_encoding(format, frame_rate, loop_count, pingpong)
        place = files.save_path(filename_prefix, images.shape[2], images.shape[1], not save_output)
        folder, name, counter, subfolder = place
        notes = media.workflow_of(cls) if save_metadata else {}
        job = Job(
            folder, name, encoding, counter, read_audio(audio), trim_to_audio, notes, len(images),
            progress.check_interrupted,
        )  # fmt: skip
        bar = progress.steps(len(images))
        with VideoWriter(job) as writer:
            for chunk in images.split(CHUNK):
                writer.write(chunk)
                bar.advance(len(chunk))
        return media.saved_video(writer.path, subfolder, not save_output, encoding.format.name, frame_rate)


NODES = [VideoCombine]
