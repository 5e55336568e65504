"""Runs inside the environment: reopens results and counts what is in them.

    python reopening.py FILE…

Exits with 1 when a picture, a video or a sound cannot be read to its end.
"""

import mimetypes
import sys
from collections import Counter
from pathlib import Path

import av
from PIL import Image, ImageSequence


def describe(path: Path) -> str:
    """What a file holds, by reading all of it. Raises OSError or av's errors where it cannot be read."""
    kind = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
    if kind == "image":
        with Image.open(path) as picture:
            return _count([frame.copy().size for frame in ImageSequence.Iterator(picture)])
    if kind not in ("video", "audio"):
        return f"{path.stat().st_size} bytes"
    with av.open(str(path)) as container:
        if container.streams.video:
            return _count([(frame.width, frame.height) for frame in container.decode(video=0)])
        samples = sum(frame.samples for frame in container.decode(audio=0))
        return f"{samples} samples of sound"


def _count(sizes: list[tuple[int, int]]) -> str:
    if not sizes:
        raise OSError("it holds no frame")
    said = [
        f"{count} frame{'s' * (count > 1)} of {width}x{height}"
        for (width, height), count in Counter(sizes).items()
    ]
    return ", ".join(said)


def main(*paths: str) -> int:
    bad = 0
    for path in map(Path, paths):
        try:
            print(f"Reopened: {path}: {describe(path)}")
        except (OSError, av.error.FFmpegError) as error:
            print(f"{path} cannot be read: {error}")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
