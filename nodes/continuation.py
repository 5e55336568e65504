"""Videos longer than a model can make at once."""

from ..modules.sampling.samplers import SAMPLERS as OURS
from ..modules.videofile.probe import usable_formats
from .checks import check_known, checked, guarded
from .host import results
from .host.api import io
from .host.sampling import SAMPLERS, SCHEDULERS
from .pipeline import continuation, long_video
from .pipeline import inpainting as given_clips
from .pipeline import sampling as pipeline
from .widgets import format_options, guidance_options, rate_input

MAX_SEGMENTS, MAX_PROMPTS, MAX_OVERLAP = 1000, 50, 64


class VideoContinue(io.ComfyNode):
    """Makes a video of any length: each segment goes on from the last frames of the one before."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoContinue",
            display_name="Video Continue",
            category="kinetograph/sampling",
            essentials_category="Video Tools",
            description="A video of any length, written as it comes. Finished segments are kept beside it: the same "
            "prompt goes on from them after a stop.",
            search_aliases=["long video", "unlimited length", "extend video", "seamless loop", "infinite"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="CogVideoX-Fun InP, CogVideoX image to video, SVD, SVD with ExVideo, or an image model with a "
                    "motion module.",
                ),
                io.Vae.Input("vae", tooltip="VAE of that model's loader."),
                io.Latent.Input("latent", tooltip="Empty latent of one segment: its size and length."),
                io.Autogrow.Input(
                    "prompts",
                    optional=True,
                    template=io.Autogrow.TemplatePrefix(
                        io.Conditioning.Input("prompt"), prefix="prompt", min=0, max=MAX_PROMPTS
                    ),
                    tooltip="A prompt for each segment; the last one goes for all that come after. SVD takes none.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What to avoid, in all segments. SVD takes none."
                ),
                io.Image.Input("start_images", optional=True, tooltip="What the video starts from."),
                io.Image.Input(
                    "end_image",
                    optional=True,
                    tooltip="Its last frame, for CogVideoX-Fun InP, SVD and motion modules.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="Image encoder of the SVD checkpoint."
                ),
                _plan_input(),
                _sampling_input(),
                _file_input(),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The finished file as a VIDEO."),
                io.String.Output(
                    "report", tooltip="Each segment: made or kept, its seed, how far its colour drifted."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model=None, *, prompts=None, plan=None, sampling=None, file=None) -> bool | str:
        """Refuse unknown choices, seeds that are none, and a file that cannot be named; `model` carries the answer."""
        try:
            check_known("plan", plan, long_video.PLANS)
            check_known("sampling", sampling, pipeline.GUIDANCE)
            check_known("file", file, [entry.name for entry in usable_formats()])
        except ValueError as error:
            return str(error)
        return long_video.plan_problem(plan or {}) or long_video.file_problem(file or {}) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Write the file again when the one that was reported is gone."""
        return results.times_gone()

    @classmethod
    @checked
    def execute(
        cls, model, vae, latent, plan, sampling, file, prompts=None, negative=None, start_images=None,
        end_image=None, clip_vision=None,
    ) -> io.NodeOutput:  # fmt: skip
        given = given_clips.Given(start_images, end_image)
        video = long_video.Video(
            model, vae, latent, tuple((prompts or {}).values()), negative, given, clip_vision, plan, sampling,
            long_video.clip_file_of(file),
        )  # fmt: skip
        return continuation.make(cls, video)


def _plan_input() -> io.DynamicCombo.Input:
    parts = [
        io.Int.Input(
            "segments", default=4, min=1, max=MAX_SEGMENTS, tooltip="How many segments the video has."
        ),
        io.Int.Input(
            "overlap",
            default=0,
            min=0,
            max=MAX_OVERLAP,
            tooltip="Frames that two segments share. 0: 4 for CogVideoX-Fun InP and motion modules, else 1.",
        ),
        io.Float.Input(
            "hold_colours",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How far each segment is brought to the colours of the first one; 0 where prompts change them.",
        ),
        io.String.Input(
            "seeds",
            default="",
            tooltip='Other seeds for single segments, such as "3: 17": segment 3 and all after it are made anew.',
        ),
        io.Combo.Input(
            "keep_segments",
            options=list(long_video.KEEPING),
            default=long_video.KEEP_ALL,
            tooltip="Finished segments lie in a folder beside the video. keep these: those of earlier runs are removed "
            "once the video is there; remove: all of this video are.",
        ),
    ]
    return io.DynamicCombo.Input(
        "plan",
        options=[io.DynamicCombo.Option(name, parts) for name in reversed(long_video.PLANS)],
        tooltip="closed loop: the last segment leads back to the first frames (CogVideoX-Fun InP, SVD, motion modules).",
    )


def _sampling_input() -> io.DynamicCombo.Input:
    # No control_after_generate in a DynamicCombo: the page adds it once more on loading, which moves all values behind
    # it. A seed that stays also lets a stopped video go on.
    shared = [
        io.Int.Input("steps", default=50, min=1, max=1000, tooltip="Sampling steps of each segment."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**64 - 1,
            tooltip="Seed of the first segment; each one after takes the next number.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=[*OURS, *SAMPLERS],
            default="ddim",
            tooltip="As in Video Sampler. Fun: ddim.",
        ),
        io.Combo.Input(
            "scheduler",
            options=[*SCHEDULERS, *pipeline.SCHEDULERS],
            default=pipeline.TRAILING,
            tooltip="As in Video Sampler. CogVideoX: trailing; SVD: edm.",
        ),
    ]
    return io.DynamicCombo.Input(
        "sampling",
        options=[io.DynamicCombo.Option(name, [*parts, *shared]) for name, parts in guidance_options()],
        tooltip="Guidance, as in Video Sampler, and how each segment is sampled.",
    )


def _file_input() -> io.DynamicCombo.Input:
    shared = [
        rate_input(),
        io.String.Input(
            "filename_prefix",
            default="video/Continued",
            tooltip="Name of the file below the output folder, as in Video Combine. Segments lie beside it.",
        ),
    ]
    return io.DynamicCombo.Input(
        "file",
        options=[
            io.DynamicCombo.Option(name, [*shared, *parts])
            for name, parts in format_options(usable_formats())
        ],
        tooltip="Container and encoder, as in Video Combine.",
    )


NODES = [VideoContinue]
