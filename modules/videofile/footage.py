"""A user's own video as a stream: what a file holds, when its frames are shown, and those of a clip one by one.

Nothing here holds more than one frame, however long the film is. Times are seconds as the file counts them.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import floor

import av
import numpy as np
from av.container import InputContainer

from .errors import VideoError, reason

Source = str | io.BytesIO
Check = Callable[[], None]
# what a file may have fewer frames than the rate it names: some were dropped, or the last is shown longer
RATE_SLACK = Fraction(1, 10)
FINEST = 10**6  # parts of a second in which people and the host give times
FASTEST = 1000  # frames per second; what a file says beyond it is the tick of its clock


@dataclass(frozen=True)
class Film:
    """A video file, and what it says of itself before anything of a clip is decoded."""

    source: Source
    # as a person sees it: turned upright, with square pixels
    width: int
    height: int
    # frames per second
    rate: Fraction
    # quarter turns to the left that make it upright
    turns: int
    # how wide a pixel is, as a multiple of its height
    pixel_width: Fraction
    has_sound: bool
    # seconds; frames from the first to just before the second count, None: to the end
    begin: Fraction
    end: Fraction | None
    # size and time of change of the file
    state: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The file's name for messages."""
        return os.path.basename(self.source) if isinstance(self.source, str) else "the video"


@dataclass(frozen=True)
class Shots:
    """Which frames of a film make a clip: `count` of them, `step` seconds apart, the first shown at `first`."""

    film: Film
    first: Fraction
    step: Fraction
    count: int

    def part(self, start: int, count: int) -> "Shots":
        """Some of these frames."""
        return Shots(self.film, self.first + start * self.step, self.step, count)


def open_film(source: Source, begin: float = 0.0, seconds: float = 0.0) -> Film:
    """A video of which only `seconds` from `begin` count, 0: all that follow. VideoError where there is none."""
    with open_container(source, None) as container:
        stream = _pictures(container, source)
        frame = next(decoded(container, stream, _name(source)), None)
        if frame is None:
            raise VideoError(f"{_name(source)} holds no frame that can be read.")
        turns = round(frame.rotation / 90) % 4
        wide = stream.sample_aspect_ratio or Fraction(1)
        size = round(frame.width * wide), frame.height
        start, length = (Fraction(number).limit_denominator(FINEST) for number in (begin, seconds))
        own = (stream.start_time or 0) * (stream.time_base or Fraction(1))
        return Film(
            source,
            *(size if turns % 2 == 0 else size[::-1]),
            rate=_rate(stream),
            turns=turns,
            pixel_width=wide,
            has_sound=sound_of(container) is not None,
            begin=max(start, own),
            end=start + length if length else None,
            state=_state(source),
        )


def _rate(stream: av.VideoStream) -> Fraction:
    """Frames per second: what the file names where that is about what it has, else what it has."""
    named, had = stream.guessed_rate, stream.average_rate
    if named and had and abs(named - had) <= had * RATE_SLACK:
        return Fraction(named)
    for rate in (had, named):
        if rate and rate <= FASTEST:
            return Fraction(rate)
    return Fraction(1)


def frame_times(film: Film, until: Fraction | None = None, check: Check = lambda: None) -> list[Fraction]:
    """When each frame is shown, in order, to the film's end or a little beyond `until`: read, not decoded."""
    ends = [time for time in (film.end, until) if time is not None]
    end = min(ends) if ends else None
    ticks = []
    with open_container(film.source, film.state) as container:
        stream = _pictures(container, film.source)
        tick = stream.time_base or Fraction(1)
        for packet in _packets(container, stream, film.name):
            check()
            shown = packet.pts if packet.pts is not None else packet.dts
            if shown is None or packet.is_discard:
                continue
            ticks.append(shown)
            # frames come in the order of decoding: none that is shown earlier follows
            if end is not None and (packet.dts if packet.dts is not None else shown) * tick > end:
                break
    # whole ticks, as the host cuts
    low = film.begin // tick
    high = max(ticks, default=0) + 1 if film.end is None else film.end // tick
    return [shown * tick for shown in sorted(ticks) if low <= shown < high]


def choose_span(
    times: Sequence[Fraction], rate: Fraction, start: Fraction, step: Fraction, count: int
) -> tuple[Fraction, int]:
    """(time of the first frame, how many there are) of frames `step` seconds apart, `start` seconds behind the first.

    At most `count`, all where it is 0; fewer where the frames end earlier. The first is the one nearest to `start`,
    so that at a film's own rate the others are those that follow it. ValueError where the frames end before `start`.
    """
    half = 1 / rate / 2
    last = times[-1] - times[0] + half
    if start > last:
        raise ValueError(
            f"The video is {float(last + half):.2f} s long: it has no frame at start = {float(start):g} s. Choose an "
            "earlier start."
        )
    first = min(times, key=lambda time: abs(time - times[0] - start))
    there = floor((times[-1] + half - first) / step) + 1
    return first, min(count or there, there)


def read_shots(shots: Shots, check: Check = lambda: None) -> Iterator[np.ndarray]:
    """The frames of a clip as (h, w, 3) uint8 RGB, upright: for each, the one shown nearest to its time.

    VideoError where the file is broken, or was replaced since it was opened.
    """
    film, half = shots.film, 1 / shots.film.rate / 2
    frames = _frames_from(film, shots.first, check)
    earlier = later = next(frames, None)
    for index in range(shots.count):
        time = shots.first + index * shots.step
        while later is not None and later[0] < time:
            earlier, later = later, next(frames, None)
        if earlier is None or (later is None and time > earlier[0] + half):
            raise VideoError(
                f"{film.name} breaks off: {index} of {shots.count} frames could be read. Use num_frames={index} or "
                "less, or convert the file first."
            )
        nearest = earlier if later is None or time - earlier[0] <= later[0] - time else later
        yield _upright(nearest[1], film)


def read_at(film: Film, times: Sequence[Fraction], check: Check = lambda: None) -> Iterator[np.ndarray]:
    """The frames shown at some of its `frame_times`, in rising order, as (h, w, 3) uint8 RGB, upright.

    VideoError where the file is broken, or was replaced since it was opened.
    """
    frames = _frames_from(film, times[0], check)
    for index, time in enumerate(times):
        frame = next((frame for shown, frame in frames if shown >= time), None)
        if frame is None:
            raise VideoError(f"{film.name} breaks off: {index} of {len(times)} frames could be read.")
        yield _upright(frame, film)


def _upright(frame: av.VideoFrame, film: Film) -> np.ndarray:
    wide = round(frame.width * film.pixel_width)
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", width=wide), film.turns))


def _frames_from(film: Film, first: Fraction, check: Check) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(time, frame) from the frame at `first` on, entered near it where the file can be."""
    with open_container(film.source, film.state) as container:
        stream = _pictures(container, film.source)
        stream.thread_type = "AUTO"
        frames = _timed(container, stream, film.name, first)
        head = next(frames, None)
        if head is None or head[0] > first:  # entered too late
            frames = _timed(container, stream, film.name, Fraction(0))
            head = next(frames, None)
        for time, frame in chain([head] if head else [], frames):
            check()
            if time >= first:
                yield time, frame


def _timed(
    container: InputContainer, stream: av.VideoStream, name: str, entry: Fraction
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    tick = stream.time_base or Fraction(1)
    seek(container, entry)
    for frame in decoded(container, stream, name):
        yield (frame.pts if frame.pts is not None else frame.dts or 0) * tick, frame


def seek(container: InputContainer, time: Fraction) -> None:
    """Go to where decoding must begin for a frame at `time`; a file that cannot be entered stays where it is."""
    try:
        container.seek(max(0, floor(time * av.time_base)))
    except av.FFmpegError:
        return


def decoded(container: InputContainer, stream: av.VideoStream | av.AudioStream, name: str) -> Iterator:
    """Every frame of a track from where the file stands; VideoError where it is broken."""
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise _broken(name, error) from error


def _packets(container: InputContainer, stream: av.VideoStream, name: str) -> Iterator[av.Packet]:
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        raise _broken(name, error) from error


def _broken(name: str, error: av.FFmpegError) -> VideoError:
    return VideoError(
        f"{name} is damaged, or not in a format that this computer can decode ({error.strerror}): convert it to mp4 "
        "first."
    )


@contextmanager
def open_container(source: Source, state: tuple[int, int] | None) -> Iterator[InputContainer]:
    """A file to read; VideoError unless it is there, whole, and in the `state` in which it was seen before."""
    if state is not None and _state(source) != state:
        raise VideoError(f"{_name(source)} was changed or removed since it was opened: run the prompt again.")
    # a buffer of its own: the same video may be read twice at once
    own = source if isinstance(source, str) else io.BytesIO(source.getvalue())
    try:
        container = av.open(own, "r")
    except OSError as error:
        raise VideoError(f"Cannot read {_name(source)}: {reason(error)}.") from error
    except av.FFmpegError as error:
        raise _broken(_name(source), error) from error
    with container:
        yield container


def _pictures(container: InputContainer, source: Source) -> av.VideoStream:
    if not container.streams.video:
        raise VideoError(f"{_name(source)} holds no pictures, only sound or text: connect a video.")
    return container.streams.video[0]


def sound_of(container: InputContainer) -> av.AudioStream | None:
    """The last track that can be decoded; asking one without a decoder would end the process."""
    tracks = (track for track in reversed(container.streams.audio) if track.codec_context is not None)
    return next(tracks, None)


def _name(source: Source) -> str:
    return os.path.basename(source) if isinstance(source, str) else "the video"


def _state(source: Source) -> tuple[int, int] | None:
    if not isinstance(source, str):
        return None
    try:
        seen = os.stat(source)
    except OSError:
        return -1, -1
    return seen.st_size, seen.st_mtime_ns
