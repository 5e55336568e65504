"""Context windows for a MODEL, in the frames and sizes that people know it by."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...modules.sampling.windows import FUSE_METHODS, SCHEDULES, WindowPlan
from ..host.description import VideoModel, attach, describe
from ..host.window_run import put_windows
from ..host.windows import Windowing

# of an overlap that nobody chose: a share of the window
USUAL = -1
SHARE = 4

__all__ = ["FUSE_METHODS", "SCHEDULES", "USUAL", "plan_problem", "add_windows"]


def add_windows(
    model: Any, schedule: Mapping[str, Any], length: int, freenoise: bool, prompts: tuple[Any, ...], node: str
) -> Any:
    """A clone of a MODEL that is sampled in windows; ValueError for a MODEL, a length or an overlap that do not fit.

    `schedule` is the choice of a DynamicCombo with its parts; `length` is in pixel frames, 0 for the model's own.
    """
    described = describe(model, node)
    cells = fold_length(described, length)
    plan = WindowPlan(
        schedule["schedule"],
        cells,
        fold_overlap(described, schedule.get("overlap", 0), cells),
        schedule.get("stride", 1),
        schedule.get("closed_loop", False),
        schedule.get("fuse_method", "pyramid"),
    )
    windowing = Windowing(
        plan, described.clip_axis, described.frame_rule, described.label, freenoise, prompts
    )
    longer = put_windows(model, windowing, node)
    # a clip may be of any length now; what a window may be was just asked
    attach(longer, replace(described, limits=replace(described.limits, max_frames=None)))
    return longer


def fold_length(described: VideoModel, length: int) -> int:
    """Latent frames of a window as long as a clip of `length` frames; ValueError for what the model cannot make."""
    own, limits, rule = described.native_size[2], described.limits, described.frame_rule
    if own <= 1:
        raise ValueError(
            f"{described.label} makes every frame alone, so that there is nothing to cut into windows: put a motion module "
            "on it first, with Motion Module Apply."
        )
    frames = length or own
    if limits.max_frames is not None and frames > limits.max_frames:
        raise ValueError(
            f"{described.label} makes clips of at most {limits.max_frames} frames, and so are its windows: got "
            f"length={frames}, use {limits.max_frames} or less, or 0 for its own {own}."
        )
    try:
        cells = described.grid.latent_frames(frames)
        rule.check(described.label, cells, described.grid)
    except ValueError as error:
        raise ValueError(f"length: {str(error).replace('num_frames', 'length')}") from None
    # as the sampler adds them to a clip
    return cells + rule.missing(cells)


def fold_overlap(described: VideoModel, overlap: int, length: int) -> int:
    """Latent frames that two windows of `length` share; ValueError unless they are whole ones, and fewer."""
    multiple, stride = described.frame_rule.multiple, described.grid.stride_t
    if overlap == USUAL:
        usual = max(length // SHARE // multiple, 1) * multiple
        return usual if usual < length else 0
    cells, rest = divmod(overlap, stride)
    if rest:
        raise ValueError(
            f"{described.label} folds {stride} frames into one latent frame: got overlap={overlap}, use "
            f"{overlap - rest} or {overlap - rest + stride}."
        )
    if cells >= length:
        raise ValueError(
            f"Windows must share fewer frames than they have: got overlap={overlap}, {cells} latent frames, and windows of "
            f"{length}. Use at most {(length - 1) * stride}."
        )
    return cells


def plan_problem(schedule: Mapping[str, Any], length: int | None) -> str | None:
    """Why windows cannot lie so, as far as a post tells; or None."""
    overlap = schedule.get("overlap")
    if length and overlap is not None and overlap >= length:
        return f"Windows must share fewer frames than they have: got overlap={overlap} of length={length}."
    return None
