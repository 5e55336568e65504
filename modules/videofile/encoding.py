"""A format with every choice made and checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from .errors import VideoError
from .formats import MAX_RATE, VideoFormat, find_format
from .options import Value

MIN_RATE = 0.1  # frames per second
MAX_LOOPS = 100


@dataclass(frozen=True)
class Encoding:
    """A format with every choice made and checked; build it with `parse_encoding`."""

    format: VideoFormat
    frame_rate: Fraction
    options: Mapping[str, Value]
    loop_count: int = 0  # extra repeats; for looping formats 0 means forever
    pingpong: bool = False

    def codec_argv(self) -> list[str]:
        chosen = (option.argv(self.options[option.name]) for option in self.format.options)
        return [*self.format.codec, *(word for words in chosen for word in words)]

    @property
    def pix_fmt(self) -> str:
        """Pixel format of the encoder's input; gif and webp are made from 8-bit RGB."""
        argv = self.codec_argv()
        return argv[argv.index("-pix_fmt") + 1] if "-pix_fmt" in argv else "rgb24"

    @property
    def alpha(self) -> bool:
        """Whether transparency is kept."""
        return self.format.alpha or self.pix_fmt.startswith("yuva")

    @property
    def deep(self) -> bool:
        """Whether more than 8 bits per channel are kept."""
        return self.pix_fmt.endswith("le")

    def frame_bytes(self, width: int, height: int) -> int:
        """Size of one raw frame as the encoder takes it."""
        return width * height * (3 + self.alpha) * (1 + self.deep)


def parse_encoding(
    format_name: object,
    frame_rate: float | Fraction,
    options: Mapping[str, object] | None = None,
    loop_count: int = 0,
    pingpong: bool = False,
) -> Encoding:
    """An Encoding from a user's words; choices not named take their defaults.

    Raises VideoError naming the input, what came, what is allowed and what to do.
    """
    chosen = find_format(format_name)
    given = dict(options or {})
    rate = _parse_rate(chosen, frame_rate)
    values = {option.name: given.pop(option.name, option.default) for option in chosen.options}
    problems = [option.problem(values[option.name]) for option in chosen.options]
    if given:
        problems.append(f"{chosen.name} has no option {', '.join(map(repr, given))}")
    if isinstance(loop_count, bool) or not isinstance(loop_count, int) or not 0 <= loop_count <= MAX_LOOPS:
        problems.append(f"loop_count must be a whole number from 0 to {MAX_LOOPS}: got {loop_count!r}")
    if not isinstance(pingpong, bool):
        problems.append(f"pingpong must be true or false: got {pingpong!r}")
    found = [problem for problem in problems if problem]
    if found:
        raise VideoError(f"format {chosen.name}: {'; '.join(found)}.")
    return Encoding(chosen, rate, values, loop_count, pingpong)  # type: ignore[arg-type]


def _parse_rate(chosen: VideoFormat, frame_rate: float | Fraction) -> Fraction:
    check_rate(frame_rate, chosen)
    return exact_rate(frame_rate)


def exact_rate(frame_rate: float | Fraction) -> Fraction:
    """The frames per second that somebody means who types so many."""
    # 1001: the NTSC rates as they are, and three decimals of any other
    return Fraction(frame_rate).limit_denominator(1001)


def check_rate(frame_rate: float | Fraction, *formats: VideoFormat) -> None:
    """VideoError unless one of the formats plays at this rate."""
    number = isinstance(frame_rate, int | float | Fraction) and not isinstance(frame_rate, bool)
    most = max((entry.max_rate for entry in formats), default=MAX_RATE)
    if not number or not math.isfinite(frame_rate) or not MIN_RATE <= frame_rate <= most:
        names = " or ".join(entry.name for entry in formats)
        raise VideoError(
            f"frame_rate must be a number from {MIN_RATE:g} to {most:g} frames per second for {names}: "
            f"got {frame_rate!r}."
        )
