"""Which formats this computer can really encode: asked of the encoder itself, once."""

import os
import sys
from functools import cache
from pathlib import Path

from . import commands
from .encoder import Encoder
from .encoding import parse_encoding
from .formats import FORMATS, VideoFormat
from .trouble import VideoError

SIDE, FRAMES, PATIENCE = 256, 2, 30.0  # GPU encoders refuse much smaller pictures
GPU_SIGNS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL


def usable_formats() -> tuple[VideoFormat, ...]:
    """The formats to offer: all that need no GPU, and those of the GPU that its probe finds working."""
    return tuple(entry for entry in FORMATS if not _needs_gpu(entry) or gpu_works(entry.name))


def check_usable(name: str) -> None:
    """Raise VideoError unless a tiny clip in this format can be encoded here. Success is remembered."""
    _encode_once(name)


@cache
def gpu_works(name: str) -> bool:
    """Whether a format of the GPU's encoder works here; nothing is started where there is no NVIDIA driver."""
    if not _has_driver():
        return False
    try:
        _encode_once(name)
    except VideoError:
        return False
    return True


@cache
def _encode_once(name: str) -> None:  # an exception is not remembered: a full disk may be empty again
    encoding = parse_encoding(name, 8)
    argv = commands.try_encoder(encoding, SIDE, SIDE)
    frame = bytes(encoding.frame_bytes(SIDE, SIDE))
    try:
        with Encoder(argv, PATIENCE, lambda: None) as encoder:
            for _ in range(FRAMES):
                encoder.feed(frame)
            encoder.finish()
    except VideoError as error:
        raise VideoError(f"format {name} does not work on this computer. {error}") from error


def _needs_gpu(entry: VideoFormat) -> bool:
    return "nvenc" in entry.name


def _has_driver() -> bool:
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvEncodeAPI64.dll").exists()
    return any(os.path.exists(sign) for sign in GPU_SIGNS)
