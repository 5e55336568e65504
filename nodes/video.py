"""Frames to a video file, and a video file to frames."""

from ..modules.videofile.probe import usable_formats
from .checks import checked, guarded, still_to_come
from .host import results
from .host.api import io
from .pipeline import media, saving
from .widgets import MAX_FRAMES, clip_inputs, file_inputs, file_outputs, fit_input, size_input


class VideoCombine(io.ComfyNode):
    """Writes a clip to a file and shows it; the file appears only when it is complete and was read back."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoCombine",
            display_name="Video Combine",
            category="kinetograph/video",
            essentials_category="Video Tools",
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


class FitVideo(io.ComfyNode):
    """Makes a clip that the model takes out of a user's own video, however long that is."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographFitVideo",
            display_name="Fit Video",
            category="kinetograph/video",
            essentials_category="Video Tools",
            description="Cut a clip out of a video at the rate, length and size that a model takes. The file is read "
            "as a stream: an hour of film needs no more memory than the clip.",
            search_aliases=["load video frames", "video to video", "resize video", "frame rate", "every nth"],
            inputs=[
                io.Video.Input("video", tooltip="Your video, from Load Video."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1e6,
                    step=0.001,
                    tooltip="Where the clip begins, in seconds.",
                ),
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.001,
                    tooltip="Frames per second to take, before every_nth; the speed stays. 0: the video's own.",
                ),
                io.Int.Input(
                    "every_nth",
                    default=1,
                    min=0,
                    max=1000,
                    tooltip="Take one frame of so many. 0: as CogVideoX-Fun does, about 8 frames per second.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=49,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Frames of the clip; the nearest count that the model takes, less where the video is "
                    "short. 0: all.",
                ),
                size_input("width", 720, "Pixels; 0: from height and the video's shape, or its own."),
                size_input("height", 480, "Pixels; 0: from width and the video's shape, or its own."),
                fit_input(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that will sample: its sizes and frame counts. Without: CogVideoX's.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", tooltip="The frames; decoded only when something is connected here."
                ),
                io.Audio.Output(
                    "AUDIO", tooltip="The sound of the same seconds; none where the video has none."
                ),
                io.Video.Output(
                    "VIDEO", tooltip="The clip, decoded by whoever takes it: it holds no frames."
                ),
                io.Int.Output("num_frames", tooltip="Frames of the clip."),
                io.Float.Output("frame_rate", tooltip="Frames per second of the clip."),
                io.String.Output(
                    "report", tooltip="Which frames were taken, what changed and what was cut off."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        """Run again once somebody takes what was left out."""
        return f"{results.is_taken(0)} {results.is_taken(1)}"

    @classmethod
    @checked
    def execute(
        cls, video, start, frame_rate, every_nth, num_frames, width, height, fit, model=None
    ) -> io.NodeOutput:
        wish = media.Wish(start, frame_rate, every_nth, num_frames, width, height, fit)
        wants = results.is_taken(0), results.is_taken(1)
        return io.NodeOutput(*media.fit_video(video, wish, model, *wants, "Fit Video"))


NODES = [VideoCombine, FitVideo]
