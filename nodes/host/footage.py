"""VIDEO of the host: one whose frames come when somebody asks for them, and where those of any other lie."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

import torch
from torch import Tensor

from . import compat
from .api import Input, InputImpl, Types

Sound = dict[str, Any]


@dataclass(frozen=True)
class FrameSource:
    """Frames that lie somewhere else, in a file or in memory: read one by one, as often as somebody wants them."""

    num_frames: int
    height: int
    width: int
    # frames per second
    rate: Fraction
    # (number of the first, how many) -> each (h, w, 3) in 0..1
    read: Callable[[int, int], Iterator[Tensor]]
    # (start, length) in seconds -> AUDIO of it; None for a video without sound
    sound: Callable[[Fraction, Fraction], Sound | None] = lambda start, length: None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of an IMAGE of all frames."""
        return self.num_frames, self.height, self.width, 3

    @property
    def seconds(self) -> Fraction:
        """How long they play."""
        return self.num_frames / self.rate

    def __iter__(self) -> Iterator[Tensor]:
        return self.read(0, self.num_frames)

    def split(self, length: int) -> Iterator[Tensor]:
        """(f, h, w, 3) of up to `length` frames, piece by piece."""
        frames = iter(self)
        for start in range(0, self.num_frames, length):
            count = min(length, self.num_frames - start)
            yield torch.stack([next(frames) for _ in range(count)])

    def all_frames(self, advance: Callable[[], None] = lambda: None) -> Tensor:
        """An IMAGE: filled frame by frame, so that nothing else of its size is held."""
        images = torch.empty(self.shape, dtype=compat.intermediate_dtype())
        for place, frame in zip(images, self, strict=True):
            place.copy_(frame)
            advance()
        return images

    def all_sound(self) -> Sound | None:
        """AUDIO, as long as the frames."""
        return self.sound(Fraction(0), self.seconds)

    def spaced(self, first: Fraction, step: Fraction, count: int) -> "FrameSource":
        """`count` frames `step` seconds apart from the second `first` on: for each, the one shown nearest to it."""
        numbers = [ceil((first + index * step) * self.rate - Fraction(1, 2)) for index in range(count)]

        def read(start: int, count: int) -> Iterator[Tensor]:
            wanted = numbers[start : start + count]
            frames = enumerate(self.read(wanted[0], wanted[-1] + 1 - wanted[0]), wanted[0])
            number, frame = next(frames)
            for one in wanted:
                while number < one:
                    number, frame = next(frames)
                yield frame

        return replace(
            self,
            num_frames=count,
            rate=1 / step,
            read=read,
            sound=lambda start, length: self.sound(first + start, length),
        )

    def part(self, start: int, count: int) -> "FrameSource":
        """Some of these frames."""
        offset = start / self.rate
        return replace(
            self,
            num_frames=count,
            read=lambda first, number: self.read(start + first, number),
            sound=lambda first, length: self.sound(offset + first, length),
        )


class StreamedVideo(Input.Video):
    """A VIDEO that holds no frame: whoever takes it decodes what it needs."""

    def __init__(self, source: FrameSource):
        self.source = source

    def get_components(self) -> Any:
        """Frames and sound, decoded now."""
        source = self.source
        return Types.VideoComponents(
            images=source.all_frames(), audio=source.all_sound(), frame_rate=source.rate
        )

    def save_to(self, path: Any, *choices: Any, **named_choices: Any) -> None:
        """Encode with the host's own writer, frame by frame: it asks `images` for its shape, then for each in turn."""
        source: Any = self.source
        components = Types.VideoComponents(
            images=source, audio=self.source.all_sound(), frame_rate=source.rate
        )
        InputImpl.VideoFromComponents(components).save_to(path, *choices, **named_choices)

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> "StreamedVideo | None":
        """Some seconds of it; a start below 0 counts from the end. None where there are none, or less in strict mode."""
        source = self.source
        # a person's and the host's seconds, without what floats add
        start, length = (Fraction(time or 0).limit_denominator(10**6) for time in (start_time, duration))
        first = floor((start if start >= 0 else max(Fraction(0), source.seconds + start)) * source.rate)
        wanted = ceil((length or source.seconds) * source.rate)
        count = min(wanted, source.num_frames - first)
        if count < 1 or (strict_duration and duration and count < wanted):
            return None
        return StreamedVideo(source.part(first, count))

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height)."""
        return self.source.width, self.source.height

    def get_duration(self) -> float:
        """Seconds."""
        return float(self.source.seconds)

    def get_frame_count(self) -> int:
        """Frames that will come."""
        return self.source.num_frames

    def get_frame_rate(self) -> Fraction:
        """Frames per second."""
        return self.source.rate


def file_of(video: Any) -> tuple[Any, float, float] | None:
    """(path or buffer, start, seconds) of a VIDEO that lies in a file, 0 seconds: to its end; None for any other."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    return video.get_stream_source(), *compat.trim_window(video)


def held_source(images_fhwc: Tensor, rate: Fraction, audio: Sound | None) -> FrameSource:
    """Frames that are in memory anyway."""
    count, height, width, _ = images_fhwc.shape

    def sound(start: Fraction, length: Fraction) -> Sound | None:
        if audio is None:
            return None
        first, last = (round(time * audio["sample_rate"]) for time in (start, start + length))
        return {**audio, "waveform": audio["waveform"][..., first:last]}

    return FrameSource(
        count,
        height,
        width,
        rate,
        lambda first, number: iter(images_fhwc[first : first + number, ..., :3]),
        sound,
    )
