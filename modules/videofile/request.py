"""What a user asked for, from the words of a node's widgets, found wanting before any work begins."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .encoding import Encoding, check_rate, parse_encoding
from .errors import VideoError
from .formats import FORMATS, VideoFormat, find_format
from .naming import check_prefix, fill_prefix
from .pixels import Audio
from .probe import check_usable, usable_formats

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

    Covers the format and those of its options that are known, the frame rate, and whether `prefix` is a harmless name
    below `root`. Costs no time: whether this computer can encode the format is found out by `check_request`.
    """
    try:
        if prefix is not None:
            check_prefix(prefix, root)
        if chosen is None:
            usable = ", ".join(entry.name for entry in usable_formats())
            raise VideoError(f"format must be one of {usable}: got another value, a link or nothing.")
        rate = 8.0 if frame_rate is None else frame_rate
        if chosen.get(CHOICE) is None:
            check_rate(rate, *formats_with(chosen))
        else:
            read_encoding({name: value for name, value in chosen.items() if value is not None}, rate)
    except VideoError as error:
        return str(error)
    return None


def formats_with(names: Iterable[str]) -> tuple[VideoFormat, ...]:
    """The formats that have options of just these names: at the post the host hands over no more of the choice."""
    wanted = {*names} - {CHOICE}
    return tuple(entry for entry in FORMATS if {option.name for option in entry.options} == wanted)


def check_request(
    format_name: str, audio: Audio | None, prefix: str, prompt: Mapping[str, Any] | None, root: Path
) -> None:
    """VideoError for what only shows when a node runs, and must show before its clip is computed.

    The format holds no sound and there is some, this computer cannot encode it, or `prefix` names what is not in the
    prompt that runs.
    """
    if audio is not None:
        find_format(format_name).check_sound()
    check_usable(format_name)
    fill_prefix(prefix, prompt, datetime.now(), root)
