"""A clip sampled window by window, through the host's own context handler (`comfy/context_windows.py`).

Which frames a window holds and what they count comes from outside as a plan. What the handler of the host does otherwise:
it cuts conditionings by whatever axis is as long as the clip, such as the width of a prompt; gives every window the first
pictures of a ControlNet; and takes frames of several clips for those of one.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.conds
import comfy.controlnet
import torch
from comfy.context_windows import (
    ContextFuseMethod,
    ContextSchedule,
    IndexListContextHandler,
    IndexListContextWindow,
)
from torch import Tensor

from ...modules.families.family import FrameRule
from . import compat

# the host's name, in model_options
HANDLER = "context_handler"
# on an entry of a conditioning: whose windows it is for
PROMPT = "kinetograph_prompt"


class Plan(Protocol):
    """Where windows lie, in latent frames of one clip; `modules/sampling/windows.py` has them."""

    @property
    def schedule(self) -> str: ...
    @property
    def fuse(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def overlap(self) -> int: ...
    @property
    def closed_loop(self) -> bool: ...
    def windows(self, frames: int, step: int = 0) -> list[list[int]]: ...
    def weights(self, window: list[int], frames: int) -> list[float]: ...
    def prompts(self, windows: list[list[int]], frames: int, count: int) -> list[int]: ...
    def noise_order(self, frames: int, seed: int) -> list[int]: ...


@dataclass(frozen=True)
class Windowing:
    """What a MODEL is told of its windows."""

    plan: Plan
    # of the frames; None where they lie on the batch axis
    axis: int | None
    rule: FrameRule
    # as a user knows the model
    label: str
    freenoise: bool = False
    # CONDITIONINGs, in the order of the clip
    prompts: tuple[Any, ...] = ()


class ClipWindow(IndexListContextWindow):
    """Frames of one clip, by their numbers in the whole batch where frames lie there; and which prompt they follow."""

    def __init__(
        self,
        numbers: list[int],
        first: int,
        frames: int,
        windowing: Windowing,
        prompt: int | None,
        total: int,
    ):
        """`numbers` are those of a clip's frames, `first` is its first one in the batch of `total` frames."""
        placed = [first + number for number in numbers]
        super().__init__(placed, dim=windowing.axis or 0, total_frames=total)
        # who puts something at frames of a clip, such as SparseCtrl, reads these
        self.clip_numbers, self.clip_frames = numbers, frames
        # read by 0.30
        self.context_overlap = windowing.plan.overlap
        self.prompt = prompt
        # ControlNets with the window's pictures, by the whole ones
        self.controls: dict[int, Any] = {}

    def get_tensor(
        self, full: Tensor, device: Any = None, dim: int | None = None, retain_index_list: Sequence[int] = ()
    ) -> Tensor:
        """The window's part of a tensor. Where a clip has an axis of frames, timesteps are one a clip, not one a frame."""
        if dim == 0 and self.dim != 0:
            return full.to(device)
        return super().get_tensor(full, device, dim, retain_index_list)

    def add_window(self, full: Tensor, to_add: Tensor, dim: int | None = None) -> Tensor:
        """Adds in place, also where a wide stride brings a frame into one window twice."""
        places = torch.tensor(self.index_list, device=full.device)
        return full.index_add_(self.dim if dim is None else dim, places, to_add.to(full.dtype))

    def rows(self, values: Tensor, axis: int) -> Tensor:
        """The window's part along an axis that has one row for all frames, or a row for each: fewer repeat."""
        count = values.shape[axis]
        if count == 1:
            return values
        places = torch.tensor([number % count for number in self.index_list], device=values.device)
        return values.index_select(axis, places)


class ClipHandler(IndexListContextHandler):
    """The host's handler with the windows of a plan, each of one clip, and conditionings cut by what they are."""

    def __init__(self, windowing: Windowing):
        plan = windowing.plan
        super().__init__(
            ContextSchedule(plan.schedule, _windows_of),
            # the host looks for "relative" and then does not ask for weights
            ContextFuseMethod(f"{plan.fuse} of this pack", _weights_of),
            context_length=plan.length,
            context_overlap=plan.overlap,
            closed_loop=plan.closed_loop,
            dim=windowing.axis or 0,
            freenoise=windowing.freenoise,
            **compat.plain_windows(),
        )
        self.windowing = windowing
        self.clip_frames = 0

    def for_run(self, frames: int) -> "ClipHandler":
        """One for a single run, whose clips have so many latent frames: what a run notes down stays with it."""
        run = copy.copy(self)
        run.clip_frames = frames
        return run

    def should_use_context(
        self, model: Any, conds: Any, x_in: Tensor, timestep: Tensor, model_options: Any
    ) -> bool:
        return self.clip_frames > self.context_length

    def set_step(self, timestep: Tensor, model_options: dict[str, Any]) -> None:
        """The step that a noise level belongs to; one between two levels (second-order samplers) to the first of them.

        The host looks for an equal level, and where there is none stays with the last step, be it of an earlier run.
        """
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        sigma = float(timestep.flatten()[0]) * (1 - 1e-4)
        self._step = max(sum(level >= sigma for level in sigmas.tolist()) - 1, 0)

    def get_context_windows(
        self, model: Any, x_in: Tensor, model_options: dict[str, Any]
    ) -> list[IndexListContextWindow]:
        plan, frames, total = self.windowing.plan, self.clip_frames, x_in.shape[self.dim]
        windows, count = plan.windows(frames, self._step), len(self.windowing.prompts)
        prompts = plan.prompts(windows, frames, count) if count else [None] * len(windows)
        # the clips of a batch lie behind one another where frames lie on the batch axis
        return [
            ClipWindow(window, first, frames, self.windowing, prompt, total)
            for first in range(0, total, frames)
            for window, prompt in zip(windows, prompts, strict=True)
        ]

    def get_resized_cond(
        self, cond_in: list[dict[str, Any]] | None, x_in: Tensor, window: Any, device: Any = None
    ) -> Any:
        """The entries of a conditioning that a window follows, with the rows of its frames."""
        if cond_in is None:
            return None
        chosen = [entry for entry in cond_in if entry.get(PROMPT, window.prompt) == window.prompt]
        return [self._cut(entry, x_in, window) for entry in chosen]

    def _cut(self, entry: dict[str, Any], x_in: Tensor, window: ClipWindow) -> dict[str, Any]:
        inputs = {name: _cut_input(name, value, x_in, window) for name, value in entry["model_conds"].items()}
        cut = {**entry, "model_conds": inputs}
        mask = entry.get("mask")
        # (rows, h, w), or (1, t, h, w) where a clip has an axis of frames
        if mask is not None and (self.dim == 0 or mask.ndim == x_in.ndim - 1):
            cut["mask"] = window.rows(mask, max(self.dim - 1, 0))
        if entry.get("control") is not None:
            cut["control"] = _cut_control(entry["control"], window)
        return cut


def _windows_of(frames: int, handler: ClipHandler, model_options: Any) -> list[list[int]]:
    return handler.windowing.plan.windows(frames, handler._step)


def _weights_of(length: int, *, handler: ClipHandler, idxs: list[int], **_: Any) -> list[float]:
    frames = handler.clip_frames
    return handler.windowing.plan.weights([number % frames for number in idxs], frames)


def _cut_input(name: str, value: Any, x_in: Tensor, window: ClipWindow) -> Any:
    """One of the network's inputs as a window has it; `value` is in the host's wrapping."""
    if name == "num_video_frames":
        return value._copy_with(len(window.index_list))
    tensor = value.cond
    if not isinstance(tensor, Tensor) or isinstance(value, comfy.conds.CONDConstant):
        return value
    # where frames lie on the batch axis every input does; else only what is shaped like the latents has frames
    if window.dim != 0 and tensor.ndim != x_in.ndim:
        return value
    return value._copy_with(window.rows(tensor, window.dim))


def _cut_control(control: Any, window: ClipWindow) -> Any:
    """A ControlNet with the pictures of a window: one for all entries, else they run one after the other."""
    if id(control) not in window.controls:
        window.controls[id(control)] = _control_copy(control, window)
    return window.controls[id(control)]


def _control_copy(control: Any, window: ClipWindow) -> Any:
    before = control.previous_controlnet
    cut_before = None if before is None else _cut_control(before, window)
    # the host's own know nothing of windows; others, such as SparseCtrl's, look at the window themselves
    is_cut = window.dim == 0 and type(control).get_control.__module__ == comfy.controlnet.__name__
    if not is_cut and cut_before is before:
        return control
    cut = copy.copy(control)
    cut.previous_controlnet = cut_before
    if is_cut and control.cond_hint_original is not None:
        cut.cond_hint_original = window.rows(control.cond_hint_original, 0)
        cut.extra_concat_orig = [window.rows(more, 0) for more in control.extra_concat_orig]
        # prepared from the pictures of other frames
        cut.cond_hint = cut.extra_concat = None
    clones = getattr(control, "multigpu_clones", {})
    cut.multigpu_clones = {place: _control_copy(clone, window) for place, clone in clones.items()}
    return cut
