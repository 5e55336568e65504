"""Which frames of a file make a clip, and how many of them a sample keeps."""

from collections.abc import Sequence
from math import floor
from typing import TypeVar

import torch

from ..draws import generator, uniform

T = TypeVar("T")


def stride_of(stride: int, fps: float, rate: float) -> int:
    """Every so many frames of a file of `rate` frames per second: `stride`, or what comes nearest to `fps`."""
    return max(1, floor(rate / fps + 0.5)) if fps else stride


def clip_frames(there: int, num_frames: int, stride: int) -> int:
    """How many frames `stride` apart a file of `there` frames gives, at most `num_frames`; 0: none.

    CogVideoX-Fun's rule (`video_dataset` of aigc-apps/CogVideoX-Fun): a short file gives fewer frames at the right
    speed. AnimateDiff and EasyAnimate stretch it to slow motion instead. Unlike Fun's, the last frame needs no whole
    stride behind it.
    """
    if there >= (num_frames - 1) * stride + 1:
        return num_frames
    return there // stride


def choose_frames(first: int, last: int, num_frames: int, stride: int, place: float) -> list[int]:
    """Numbers of `num_frames` frames out of first to last - 1, `place` (0 to below 1) of the way to the latest start."""
    room = last - first - ((num_frames - 1) * stride + 1)
    start = first + min(floor(place * (room + 1)), room)
    return [start + index * stride for index in range(num_frames)]


def window(num_frames: int, start: float, end: float) -> tuple[int, int]:
    """First frame and the one behind the last of a part of a file, such as 0.1 to 0.9."""
    return floor(start * num_frames), floor(end * num_frames)


def random_lengths(rule: str, num_frames: int) -> tuple[list[int], list[float]]:
    """Lengths that a sample may be cut to, and how likely each is.

    "easyanimate": 4, 8, ... with p as the length; "fun": 5, 9, ... with .9 for `num_frames`, the rest alike.
    """
    if rule == "easyanimate":
        lengths = list(range(4, num_frames + 1, 4)) or [num_frames]
        return lengths, [length / sum(lengths) for length in lengths]
    shorter = list(range(5, num_frames, 4))
    lengths = [*shorter, num_frames]
    return lengths, [0.1 / len(shorter)] * len(shorter) + [0.9] if shorter else [1.0]


def random_length(rule: str, num_frames: int, index: int, variant: int, seed: int) -> int:
    """Frames that a sample keeps, from the front."""
    if rule == "none" or num_frames == 1:
        return num_frames
    lengths, weights = random_lengths(rule, num_frames)
    return pick(lengths, weights, uniform("random_frames", index, variant, seed))


def pick(values: Sequence[T], weights: Sequence[float], place: float) -> T:
    """The value at a place of 0..1 along the weights."""
    for value, weight in zip(values, weights, strict=True):
        place -= weight
        if place < 0:
            return value
    return values[-1]


def draw(values: Sequence[T], purpose: str, *numbers: int) -> T:
    """One of some values, all alike."""
    return values[int(torch.randint(len(values), (), generator=generator(purpose, *numbers)))]
