"""What is asked before anything is sampled: whether the weights are those that were loaded, whether the clip fits."""

from collections.abc import Callable
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...modules.families.family import FrameRule
from .backend import Check
from .description import VideoModel

# the host's name for the frames of one clip, in a LATENT and in a conditioning
NUM_FRAMES = "num_frames"
GUARD = "kinetograph_clip_check"
# the same of a run, in `transformer_options`, where a network asks for it at every call
CLIP_FRAMES = "kinetograph_clip_frames"
# Frames, latent height, latent width; ValueError when such a clip does not fit.
CheckClip = Callable[[int, int, int], None]


def checking(check: Check) -> Callable[..., Tensor]:
    """An OUTER_SAMPLE wrapper that asks `check` before the first step, and again before the result counts."""

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        check()
        samples = executor(*args, **kwargs)
        check()
        return samples

    return wrapper


def guard_limits(model: Any, description: VideoModel) -> None:
    """Have a MODEL, one of a loader of this pack, refuse clips beyond the limits that its description names."""
    if not description.limits.text:
        return
    grid = description.grid

    def check(frames: int, cells_h: int, cells_w: int) -> None:
        size = cells_w * grid.stride_hw, cells_h * grid.stride_hw
        description.limits.check(description.label, *size, grid.pixel_frames(frames))

    guard_clips(model, check, description.clip_axis)


def guard_clips(model: Any, check_clip: CheckClip, axis: int | None = None) -> None:
    """Have a MODEL ask `check_clip` before anything is sampled; `axis` is that of the frames, None the batch."""
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, GUARD)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, GUARD, _checking(check_clip, axis))


def _checking(check: CheckClip, axis: int | None) -> Callable[..., Tensor]:
    """An OUTER_SAMPLE wrapper that looks at the clip first. Context windows cut it, so they are asked instead."""

    def wrapper(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider = executor.class_obj
        windows = guider.model_options.get("context_handler")
        frames = clip_length(guider, noise, axis)
        if axis is None:
            check_whole(len(noise), frames)
        # a clip that is no longer than a window is not cut
        check(frames if windows is None else min(frames, windows.context_length), *noise.shape[-2:])
        return executor(noise, *args, **kwargs)

    return wrapper


def check_whole(total: int, clip: int) -> None:
    """ValueError unless a batch of `total` frames is clips of `clip`."""
    if total % clip:
        raise ValueError(
            f"The batch holds {total} frames, which are no clips of {clip}: make latents of whole clips with Video "
            "Latent, or set num_frames of Motion Module Apply to 0."
        )


def check_windows(windows: Any, frames: int, rule: FrameRule, label: str) -> None:
    """ValueError for context windows along time that would cut a token of several latent frames in two.

    0.30 puts the frame before a window in front of it unless it is told not to.
    """
    if windows is None or windows.dim != 2 or frames <= windows.context_length:
        return
    length = windows.context_length + int(getattr(windows, "causal_window_fix", False))
    if rule.missing(length) or rule.missing(windows.context_length):
        high = length + rule.missing(length) or length + rule.multiple
        low = high - rule.multiple or high
        raise ValueError(
            f"{label} needs context windows of a multiple of {rule.multiple} latent frames: got {length}, use {low} "
            f"or {high} in Context Windows (Manual) with dim 2, and causal_window_fix off where it is there; or Context "
            "Windows of this pack, which counts as the model does."
        )


def clip_length(guider: Any, noise: Tensor, axis: int | None) -> int:
    """Latent frames of one clip: on its axis, or as the run or the conditioning tells, or the whole batch."""
    if axis is not None:
        return noise.shape[axis]
    if told := guider.model_options.get("transformer_options", {}).get(CLIP_FRAMES):
        return told
    frames = [cond[NUM_FRAMES] for cond in guider.conds.get("positive", ()) if NUM_FRAMES in cond]
    return frames[0] if frames else noise.shape[0]
