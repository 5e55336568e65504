"""What a user asked for, from the words of a node's widgets, found wanting before any work begins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .encoding import Encoding, parse_encoding
from .naming import check_prefix
from .pixels import Audio
from .probe import check_usable, until_usable, usable_formats
from .trouble import VideoError

CHOICE = "format"  # the widget that names the format; the format's own options lie beside it


def read_encoding(
    chosen: Mapping[str, Any], frame_rate: float, loop_count: int = 0, pingpong: bool = False
) -> Encoding:
    """The Encoding of {"format": name, option: value, ...}; VideoError says what does not fit."""
    options = {name: value for name, value in chosen.items() if name != CHOICE}
    return parse_encoding(chosen[CHOICE], frame_rate, options, loop_count, pingpong)


def read_audio(audio: Mapping[str, Any] | None) -> Audio | None:
    """Sound from {"waveform": (b, c, samples), "sample_rate": Hz}: the first of the batch."""
    return None if audio is None else Audio(audio["waveform"][0], int(audio["sample_rate"]))


def request_problem(
    chosen: Mapping[str, Any] | None, frame_rate: float | None, prefix: str | None, root: Path
) -> str | None:
    """Why a request cannot be met, or None; values that are not known yet are None and pass.

    Covers the format and each of its options, whether this computer can encode it, the frame rate, and
    whether `prefix` is a harmless name below `root`. Waits for the encoder: event loops ask `posted_problem`.
    """
    try:
        check_usable(_check_words(chosen, frame_rate, prefix, root))
    except VideoError as error:
        return str(error)
    return None


async def posted_problem(
    chosen: Mapping[str, Any] | None, frame_rate: float | None, prefix: str | None, root: Path
) -> str | None:
    """`request_problem` for an event loop, which serves others while the encoder is tried out."""
    try:
        await until_usable(_check_words(chosen, frame_rate, prefix, root))
    except VideoError as error:
        return str(error)
    return None


def _check_words(
    chosen: Mapping[str, Any] | None, frame_rate: float | None, prefix: str | None, root: Path
) -> str:
    """Name of the chosen format; VideoError when anything that was typed does not fit."""
    if prefix is not None:
        check_prefix(prefix, root)
    if chosen is None or chosen.get(CHOICE) is None:
        usable = ", ".join(entry.name for entry in usable_formats())
        raise VideoError(f"format is missing or unknown to this computer: use one of {usable}.")
    known = {name: value for name, value in chosen.items() if value is not None}
    read_encoding(known, 8.0 if frame_rate is None else frame_rate)
    return str(chosen[CHOICE])
