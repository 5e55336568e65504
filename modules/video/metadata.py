"""The workflow inside the file: written the way ComfyUI looks for it, and read back to be sure.

mp4, mov, webm and mkv carry tags; webp carries EXIF (ComfyUI's own convention: 0x0110 "prompt:{...}",
0x010F "workflow:{...}"); gif has a comment block with one JSON object.
"""

import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image

from .formats import VideoFormat
from .trouble import VideoError

KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
EXIF_PROMPT, EXIF_OTHERS = 0x0110, 0x010F  # others count down from here
EXIF_FLAG = 0x08  # WebP container specification, VP8X chunk
GIF_COMMENT, GIF_END = b"\x21\xfe", b"\x00"
GIF_BLOCK = 255


def check_metadata(metadata: Mapping[str, str]) -> None:
    """VideoError when a key or text cannot be stored."""
    for key, text in metadata.items():
        if not KEY.fullmatch(key):
            raise VideoError(f"Metadata keys are 1 to 64 letters, digits, '_', '.' or '-': got {key!r}.")
        if "\0" in text:
            raise VideoError(
                f"Metadata '{key}' holds a NUL character, which ends texts in video files: remove it."
            )


def ffmetadata(metadata: Mapping[str, str]) -> str:
    """Text of an ffmetadata file (ffmpeg-formats, section Metadata): specials and newlines are escaped."""
    lines = (f"{escape(key)}={escape(text)}\n" for key, text in metadata.items())
    return ";FFMETADATA1\n" + "".join(lines)


def escape(text: str) -> str:
    return re.sub(r"([=;#\\\n\r])", r"\\\1", text)


def attach(path: Path, form: VideoFormat, metadata: Mapping[str, str], scratch: Path) -> None:
    """Put metadata into a finished gif or webp, through a copy at `scratch`; others got it from ffmpeg."""
    if not metadata or form.tags not in ("comment", "exif"):
        return
    write = _copy_gif if form.tags == "comment" else _copy_webp
    with path.open("rb") as source, scratch.open("wb") as target:
        write(source, target, metadata)
    scratch.replace(path)


def read_metadata(path: Path, form: VideoFormat) -> dict[str, str]:
    """What a file says about how it was made, keys in lower case."""
    if form.tags == "exif":
        return dict(_read_exif(path))
    if form.tags == "comment":
        with Image.open(path) as picture:
            return json.loads(picture.info.get("comment", b"{}"))
    with av.open(str(path)) as container:
        return {key.lower(): text for key, text in container.metadata.items()}


def verify_metadata(path: Path, form: VideoFormat, metadata: Mapping[str, str]) -> None:
    """VideoError when what was to be stored is not what can be read."""
    found = read_metadata(path, form) if metadata else {}
    for key, text in metadata.items():
        if found.get(key.lower()) != text:
            raise VideoError(
                f"Metadata '{key}' did not survive in {form.name}: {len(text)} characters were to be stored, "
                f"{len(found.get(key.lower(), ''))} came back changed. Switch save_metadata off, and report this."
            )


def _copy_gif(source: BinaryIO, target: BinaryIO, metadata: Mapping[str, str]) -> None:
    """The file with a comment after the global colour table (GIF89a, sections 18, 19 and 24)."""
    header = source.read(13)
    table = 3 * 2 ** ((header[10] & 7) + 1) if header[10] & 0x80 else 0
    target.write(header + source.read(table) + GIF_COMMENT)
    text = json.dumps(metadata).encode("ascii")
    for start in range(0, len(text), GIF_BLOCK):
        block = text[start : start + GIF_BLOCK]
        target.write(bytes([len(block)]) + block)
    target.write(GIF_END)
    shutil.copyfileobj(source, target)


def _exif(metadata: Mapping[str, str]) -> bytes:
    exif = Image.Exif()
    tag = EXIF_OTHERS
    for key, text in metadata.items():
        exif[EXIF_PROMPT if key == "prompt" else tag] = f"{key}:{text}".encode()
        tag -= key != "prompt"
    return exif.tobytes()


def _read_exif(path: Path) -> Iterator[tuple[str, str]]:
    with Image.open(path) as picture:
        for text in picture.getexif().values():
            if isinstance(text, str):
                key, _, value = text.encode("latin-1").decode().partition(":")  # PIL takes EXIF for Latin-1
                yield key, value


def _copy_webp(source: BinaryIO, target: BinaryIO, metadata: Mapping[str, str]) -> None:
    """The file with an EXIF chunk (WebP container specification); a still picture gets a VP8X header for it."""
    riff = source.read(12)
    kind, size = struct.unpack("<4sI", source.read(8))
    body = source.read(size + size % 2)
    target.write(riff)
    if kind == b"VP8X":
        target.write(_chunk(kind, bytes([body[0] | EXIF_FLAG]) + body[1:]))
    else:
        with Image.open(source.name) as picture:
            sides = struct.pack("<II", picture.width - 1, picture.height - 1)
        target.write(_chunk(b"VP8X", bytes([EXIF_FLAG, 0, 0, 0]) + sides[0:3] + sides[4:7]))
        target.write(_chunk(kind, body[:size]))
    shutil.copyfileobj(source, target)
    target.write(_chunk(b"EXIF", _exif(metadata)))
    total = target.tell() - 8
    target.seek(4)
    target.write(struct.pack("<I", total))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)
