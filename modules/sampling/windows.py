"""Long clips in overlapping windows: which frames each holds, how they are blended, and which prompt each follows.

Frames here are those of the latents. AnimateDiff-Evolved's schedules (Kosinkadink/ComfyUI-AnimateDiff-Evolved, first in
neggles/animatediff-cli), diffsynth's long-video windows, and FreeNoise (arXiv 2310.15169).
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

Window = list[int]  # frame numbers, in the order in which the network sees them

# of a ramp: no frame is without weight where only the ends of windows meet
LEAST = 1e-6


@dataclass(frozen=True)
class WindowPlan:
    """How a clip of any length is cut into windows, in latent frames."""

    schedule: str
    length: int
    overlap: int = 0
    # 1, or more: also windows of every second frame, of every fourth and so on
    stride: int = 1
    # the last frame is followed by the first
    closed_loop: bool = False
    fuse: str = "pyramid"

    @property
    def hop(self) -> int:
        """Frames from the start of a window to the next one's."""
        return self.length - self.overlap

    @property
    def is_circular(self) -> bool:
        """Whether windows may hold the last frames and the first."""
        return self.schedule == LOOPED

    def windows(self, frames: int, step: int = 0) -> list[Window]:
        """The windows of a clip at a step of the run; one of all frames where they fit into it."""
        if frames <= self.length:
            return [list(range(frames))]
        return SCHEDULES[self.schedule](self, frames, step)

    def weights(self, window: Window, frames: int) -> list[float]:
        """What each frame of a window counts where windows overlap, above 0."""
        return FUSE_METHODS[self.fuse](self, window, frames)

    def prompts(self, windows: list[Window], frames: int, count: int) -> list[int]:
        """Which of `count` prompts each window follows, by its middle.

        A loop is shared out in equal arcs, the first behind the last. Of an open clip the windows are, in the order of
        their middles: by equal parts of the clip, a window longer than a part would leave out the first prompt and the
        last, and the last window, which may lie close behind the one before, would take another's.
        """
        middles = [
            _middle(window, frames) if self.is_circular else sum(window) / len(window) for window in windows
        ]
        if self.is_circular:
            return [min(int(middle * count / frames), count - 1) for middle in middles]
        order = sorted(range(len(windows)), key=middles.__getitem__)
        return [order.index(number) * count // len(windows) for number in range(len(windows))]

    def noise_order(self, frames: int, seed: int) -> list[int]:
        """FreeNoise: whose noise each frame takes. Behind one window, every block of `hop` frames shuffles the noise of
        the block one window earlier."""
        order = list(range(min(self.length, frames)))
        generator = torch.Generator().manual_seed(seed)
        for place in range(self.length, frames, self.hop):
            block = torch.randperm(min(self.hop, frames - place), generator=generator)
            order += [order[place - self.length + int(number)] for number in block]
        return order


def reversed_bits(step: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8 ...: the bits of a step behind the point, the last one first."""
    share, place = 0.0, 0.5
    while step:
        share += place * (step & 1)
        step, place = step >> 1, place / 2
    return share


def _middle(window: Window, frames: int) -> float:
    """The middle of a window that may go over the end of a loop."""
    pace = (window[1] - window[0]) % frames if len(window) > 1 else 0
    return (window[0] + pace * (len(window) - 1) / 2) % frames


def _paces(plan: WindowPlan, frames: int) -> list[int]:
    """1, 2, 4 ...: frames from one place of a window to the next."""
    return [2**power for power in range(min(plan.stride, math.ceil(math.log2(frames / plan.length)) + 1))]


def _static(plan: WindowPlan, frames: int, step: int) -> list[Window]:
    """A window every `hop` frames, the last one moved back to end with the clip."""
    return [_from(plan, frames, start) for start in (*range(0, frames - plan.length, plan.hop), frames)]


def _truncated(plan: WindowPlan, frames: int, step: int) -> list[Window]:
    """A window every `hop` frames, the last one cut off at the end of the clip, as in diffsynth."""
    starts = [*range(0, frames - plan.length, plan.hop)]
    starts.append(len(starts) * plan.hop)
    return [list(range(start, min(start + plan.length, frames))) for start in starts]


def _looped(plan: WindowPlan, frames: int, step: int) -> list[Window]:
    """Windows that start elsewhere at every step and go on behind the last frame with the first."""
    share, found = reversed_bits(step), []
    for pace in _paces(plan, frames):
        shift = round(frames * share)
        end = frames + shift - (0 if plan.closed_loop else plan.overlap)
        for start in range(int(share * pace) + shift, end, plan.length * pace - plan.overlap):
            found.append([(start + pace * place) % frames for place in range(plan.length)])
    return found


def _uniform(plan: WindowPlan, frames: int, step: int) -> list[Window]:
    """The same, but for an open clip: windows that would go on with the first frame are moved to end with the last.

    Where that leaves out the frame with which such a window began anew, a window from there is added. With strides of 2
    and more the published rule, which the host has as well, may leave a frame out all the same, as frame 1 of 18 in
    windows of 8: a window is added there, too. The host's own list runs over the end of the clip for some strides.
    """
    waiting, found = deque(_looped(plan, frames, step)), []
    while waiting:
        window = waiting.popleft()
        again = next((now for before, now in zip(window, window[1:], strict=False) if now < before), None)
        if again is not None:
            window = [(frame - window[-1] - 1) % frames for frame in window]
            follower = waiting[0] if waiting else [*found, window][0]
            if again not in follower:
                waiting.appendleft(_from(plan, frames, again))
        found.append(window)
    found = [list(window) for window in dict.fromkeys(map(tuple, found))]
    while left_out := set(range(frames)).difference(*found):
        found.append(_from(plan, frames, min(left_out)))
    return found


def _from(plan: WindowPlan, frames: int, start: int) -> Window:
    """A window that starts at a frame, or as near to it as the end of the clip allows."""
    start = min(start, frames - plan.length)
    return list(range(start, start + plan.length))


def _flat(plan: WindowPlan, window: Window, frames: int) -> list[float]:
    return [1.0] * len(window)


def _pyramid(plan: WindowPlan, window: Window, frames: int) -> list[float]:
    """1, 2, 3 ... up to the middle and down again."""
    return [float(min(place + 1, len(window) - place)) for place in range(len(window))]


def _relative(plan: WindowPlan, window: Window, frames: int) -> list[float]:
    """A triangle over the places of a window, 0.01 at least: diffsynth's weights and Evolved's "relative".

    The host measures frame numbers instead, and turns the triangle over in windows that pass the end of a loop.
    """
    middle, half = (len(window) - 1) / 2, (len(window) - 1 + 0.01) / 2
    return [max(1 - abs(place - middle) / half, 0.01) for place in range(len(window))]


def _linear(plan: WindowPlan, window: Window, frames: int) -> list[float]:
    """Flat, with a ramp over the overlap at both ends but those of the clip; a closed loop has none."""
    weights, overlap = [1.0] * len(window), min(plan.overlap, len(window))
    ramp = torch.linspace(LEAST, 1, overlap, dtype=torch.float64).tolist()
    if plan.closed_loop or window[0] > 0:
        weights[:overlap] = ramp
    if plan.closed_loop or window[-1] < frames - 1:
        back = len(window) - overlap
        weights[back:] = [
            min(before, weight) for before, weight in zip(weights[back:], ramp[::-1], strict=True)
        ]
    return weights


LOOPED = "looped_uniform"
SCHEDULES: dict[str, Callable[[WindowPlan, int, int], list[Window]]] = {
    "standard_static": _static,
    "standard_uniform": _uniform,
    LOOPED: _looped,
    "standard_truncated": _truncated,
    # told without an overlap
    "batched": _truncated,
}
FUSE_METHODS: dict[str, Callable[[WindowPlan, Window, int], list[float]]] = {
    "pyramid": _pyramid,
    "relative": _relative,
    "flat": _flat,
    "overlap-linear": _linear,
}
