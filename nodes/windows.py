"""Clips longer than a model can make at once, as overlapping windows of one run."""

from .checks import check_known, checked, guarded
from .host.api import io
from .pipeline import windows as pipeline
from .widgets import MAX_FRAMES

MAX_STRIDE, MAX_PROMPTS = 16, 50


class ContextWindows(io.ComfyNode):
    """Samples a long clip in overlapping windows at every step, each with the prompt of its part of the clip."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographContextWindows",
            display_name="Context Windows",
            category="kinetograph/motion",
            description="Sample a clip of any length in overlapping windows of a length that the model knows, with a "
            "prompt for each part, and closed to a loop if wanted. For AnimateDiff, EasyAnimate, SVD and CogVideoX, with any sampler.",
            search_aliases=[
                "context options",
                "long clip",
                "prompt travel",
                "seamless loop",
                "freenoise",
                "sliding window",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="Video model: CogVideoX, SVD, or SD1.5 and SDXL with a motion module."
                ),
                _schedule_input(),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Frames of a window, as of a clip that the model makes at once; 0 for the model's own: "
                    "AnimateDiff 16, SVD XT 25, CogVideoX 49.",
                ),
                io.Boolean.Input(
                    "freenoise",
                    default=False,
                    tooltip="Every window starts from the noise of the first, shuffled (FreeNoise): what is seen stays more "
                    "alike over the clip.",
                ),
                io.Autogrow.Input(
                    "prompts",
                    optional=True,
                    template=io.Autogrow.TemplatePrefix(
                        io.Conditioning.Input("prompt"), prefix="prompt", min=0, max=MAX_PROMPTS
                    ),
                    tooltip="Prompts in the order of the clip, spread evenly over it, in place of the sampler's positive "
                    "one. A window follows the prompt of its middle; in a loop the first follows the last.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", tooltip="The model, for any sampler.")],
        )

    @classmethod
    def validate_inputs(cls, model=None, length=None, *, schedule=None, prompts=None) -> bool | str:
        """Refuse an unknown schedule, and an overlap that leaves nothing of a window; `model` carries the answer."""
        try:
            check_known("schedule", schedule, pipeline.SCHEDULES)
        except ValueError as error:
            return str(error)
        return pipeline.plan_problem(schedule or {}, length) or True

    @classmethod
    @checked
    def execute(cls, model, schedule, length, freenoise, prompts=None) -> io.NodeOutput:
        several = tuple((prompts or {}).values())
        return io.NodeOutput(
            pipeline.add_windows(model, schedule, length, freenoise, several, "Context Windows")
        )


def _schedule_input() -> io.DynamicCombo.Input:
    overlap, stride, loop, fuse = _overlap_input(), _stride_input(), _loop_input(), _fuse_input()
    parts = {
        "standard_static": [overlap, fuse],
        "standard_uniform": [overlap, stride, fuse],
        "looped_uniform": [overlap, stride, loop, fuse],
        "standard_truncated": [overlap, fuse],
        "batched": [],
    }
    return io.DynamicCombo.Input(
        "schedule",
        options=[io.DynamicCombo.Option(name, inputs) for name, inputs in parts.items()],
        tooltip="Where windows lie. standard_static: always at the same places; standard_uniform: elsewhere at every step; "
        "looped_uniform: the same, also over the ends of the clip; standard_truncated: the last window is cut off, as in "
        "diffsynth; batched: without overlap.",
    )


def _overlap_input() -> io.Int.Input:
    return io.Int.Input(
        "overlap",
        default=pipeline.USUAL,
        min=pipeline.USUAL,
        max=MAX_FRAMES,
        tooltip="Frames that two windows share, in multiples of 4 for CogVideoX; -1: a quarter of a window.",
    )


def _stride_input() -> io.Int.Input:
    return io.Int.Input(
        "stride",
        default=1,
        min=1,
        max=MAX_STRIDE,
        tooltip="Above 1, also windows of every second frame, from 3 of every fourth, and so on, as far as the clip is "
        "long enough: motion over longer times, for more work.",
    )


def _loop_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "closed_loop",
        default=True,
        tooltip="The clip ends where it began: windows join its ends in every step.",
    )


def _fuse_input() -> io.Combo.Input:
    return io.Combo.Input(
        "fuse_method",
        options=list(pipeline.FUSE_METHODS),
        default="pyramid",
        tooltip="What a frame counts in each of its windows. pyramid: the more the nearer to its middle; relative: the same "
        "as a triangle, as diffsynth; flat: everywhere the same; overlap-linear: a ramp over the overlap.",
    )


NODES = [ContextWindows]
