"""Reopen a video file and see what is really in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from .encoding import Encoding
from .errors import VideoError

# Animated pictures, and the tick in which each counts how long a frame is shown. PIL reads them: PyAV reads no
# animated webp.
PICTURES = {".gif": Fraction(1, 100), ".webp": Fraction(1, 1000)}
# Matroska keeps the time of a frame in whole nanoseconds. The reader makes a fraction of them whose parts end at
# LARGEST_PART: rates with larger ones come back as a neighbour, up to half of 1 / LARGEST_PART away.
RATE_SLACK, LARGEST_PART = Fraction(2, 10**9), 30_000


@dataclass(frozen=True)
class Contents:
    """What was found in a file by decoding all of it."""

    num_frames: int
    width: int
    height: int
    seconds: Fraction  # that the pictures fill
    pix_fmt: str
    audio_samples: int = 0
    audio_rate: int = 0
    alpha: bool = False


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a file as (h, w, 3) uint8 RGB."""
    if path.suffix in PICTURES:
        with Image.open(path) as picture:
            for frame in ImageSequence.Iterator(picture):
                yield np.asarray(frame.convert("RGB"))
        return
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def inspect(path: Path, check: Callable[[], None] = lambda: None) -> Contents:
    """Decode a whole file; `check` is asked at each frame. VideoError when it cannot be read."""
    try:
        return _inspect_picture(path, check) if path.suffix in PICTURES else _inspect_video(path, check)
    except (OSError, ValueError, IndexError, EOFError, SyntaxError) as error:  # PIL and PyAV between them
        text = str(error).replace(str(path), path.name)
        raise VideoError(
            f"The file cannot be read back ({text}): try another format, and report this."
        ) from error


def _inspect_video(path: Path, check: Callable[[], None]) -> Contents:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.thread_type = "AUTO"
        frames, width, height = 0, 0, 0
        for frame in container.decode(video):
            check()
            if frames and (frame.width, frame.height) != (width, height):
                raise ValueError(f"frame {frames} is {frame.width}x{frame.height}, others {width}x{height}")
            width, height, frames = frame.width, frame.height, frames + 1
        rate = video.average_rate or Fraction(0)
        seconds = frames / rate if rate else Fraction(0)
        samples, audio_rate = _count_audio(path) if container.streams.audio else (0, 0)
        pix_fmt = video.codec_context.pix_fmt or ""
        # webm keeps alpha beside the picture, where the usual decoder of VP9 does not look
        alpha = pix_fmt.startswith("yuva") or video.metadata.get("alpha_mode") == "1"
        return Contents(frames, width, height, seconds, pix_fmt, samples, audio_rate, alpha)


def _count_audio(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(audio)), audio.rate


def _inspect_picture(path: Path, check: Callable[[], None]) -> Contents:
    milliseconds, frames = 0, 0
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            check()
            frame.load()
            milliseconds += int(frame.info.get("duration", 0))
            frames += 1
        width, height = picture.size
        seconds = Fraction(milliseconds, 1000)
        return Contents(frames, width, height, seconds, "", alpha=picture.mode == "RGBA")


def verify(
    found: Contents,
    encoding: Encoding,
    num_frames: int,
    width: int,
    height: int,
    sound: Fraction,
    alpha: bool = False,
) -> None:
    """VideoError when a file does not hold what was written into it.

    `sound` is seconds of audio asked for, `alpha` whether any pixel was not opaque.
    """
    wanted = f"{num_frames} frames of {width}x{height}"
    got = f"{found.num_frames} frames of {found.width}x{found.height}"
    merged = encoding.format.muxer == "webp"  # equal neighbours become one longer frame
    whole = 1 <= found.num_frames <= num_frames if merged else found.num_frames == num_frames
    if not whole or (found.width, found.height) != (width, height):
        raise VideoError(f"The finished file is wrong: {wanted} were written, {got} are in it. Report this.")
    problem = _time_problem(found, encoding, num_frames) or _pixel_problem(found, encoding)
    if alpha and not found.alpha:
        problem = problem or "transparent frames were written, none are in it"
    if sound and not problem and abs(_sound_seconds(found) - sound) > Fraction(1, 5):
        problem = (
            f"{float(sound):.2f} s of sound were written, {float(_sound_seconds(found)):.2f} s are in it"
        )
    if problem:
        raise VideoError(f"The finished file is wrong: {problem}. Try another format, and report this.")


def _sound_seconds(found: Contents) -> Fraction:
    return Fraction(found.audio_samples, found.audio_rate) if found.audio_rate else Fraction(0)


def _time_problem(found: Contents, encoding: Encoding, num_frames: int) -> str | None:
    """Whether the clip plays as long as asked, as exactly as its container can say."""
    if found.num_frames < 2:
        return None  # a still has no speed
    wanted = num_frames / encoding.frame_rate
    tick = PICTURES.get(encoding.format.suffix)
    slack = 2 * tick if tick is not None else num_frames * RATE_SLACK
    if tick is None and max(encoding.frame_rate.as_integer_ratio()) > LARGEST_PART:
        slack = wanted / LARGEST_PART
    if abs(found.seconds - wanted) <= slack:
        return None
    return f"it was to play {float(wanted):.7g} s and plays {float(found.seconds):.7g} s"


def _pixel_problem(found: Contents, encoding: Encoding) -> str | None:
    """Whether the encoder quietly took fewer bits or coarser chroma than asked for."""
    if not found.pix_fmt or "-pix_fmt" not in encoding.codec_argv():
        return None
    wanted, got = _fineness(encoding.pix_fmt), _fineness(found.pix_fmt)
    if all(a <= b for a, b in zip(wanted, got, strict=True)):
        return None
    return f"pix_fmt {encoding.pix_fmt} was asked for, the encoder made {found.pix_fmt}"


def _fineness(pix_fmt: str) -> tuple[int, int, int]:
    """(bits, chroma columns, chroma rows) of a pixel format, for a 64x64 picture."""
    layout = av.VideoFormat(pix_fmt, 64, 64)
    parts = list(layout.components)
    chroma = parts[1] if len(parts) > 1 else parts[0]
    return parts[0].bits, chroma.width, chroma.height
