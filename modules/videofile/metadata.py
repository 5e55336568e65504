"""The workflow inside the file: written the way ComfyUI looks for it, and read back to be sure.

mp4, mov, webm and mkv carry tags; webp carries EXIF (ComfyUI's own convention: 0x0110 "prompt:{...}",
0x010F "workflow:{...}"); gif has a comment block with one JSON object.
"""

import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image, TiffImagePlugin, TiffTags

from .formats import VideoFormat

# ffmpeg's muxers write these themselves, or keep them in places of their own
OWN_NAMES = {
    "mp4": {"encoder"},
    "matroska": {"encoder", "duration", "creation_time", "stereo_mode", "encoding_tool", "alpha_mode"},
}
MAX_NAME_BYTES = 255
MAX_MATROSKA_BYTES = 16 * 2**20  # of one text: ffmpeg reads no longer one
MAX_EXIF_NOTES = 200
SHOWN_NAME, SHOWN_NOTES = 60, 20
EXIF_PROMPT, EXIF_OTHERS = 0x0110, 0x010F  # others count down from here
EXIF_FLAG, ALPHA_FLAG = 0x08, 0x10  # WebP container specification, VP8X chunk
GIF_COMMENT, GIF_END = b"\x21\xfe", b"\x00"
GIF_BLOCK = 255


@dataclass(frozen=True)
class Notes:
    """Texts to keep in a file, by name; and why others cannot be kept, by name too."""

    texts: Mapping[str, str]
    left_out: Mapping[str, str]


def read_notes(prompt: object, extra: object) -> Notes:
    """The prompt and whatever came with it as JSON texts; what is no JSON is left out, never an error."""
    notes = {} if prompt is None else {"prompt": prompt}
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if isinstance(extra, Mapping):
        left_out |= {name: "the name is taken" for name in notes if name in extra}
        notes = {**extra, **notes}
    elif extra is not None:
        left_out["extra_pnginfo"] = f"a {type(extra).__name__} came where names and values belong"
    for name, value in notes.items():
        try:
            texts[name] = json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            left_out[str(name)] = "its value cannot be written as JSON"
    return Notes(texts, left_out)


def storable(notes: Notes, form: VideoFormat) -> Notes:
    """What a format can keep of notes; the prompt and the workflow come first where names or room are short."""
    texts: dict[str, str] = {}
    left_out = dict(notes.left_out)
    taken: set[str] = set()
    for name in sorted(notes.texts, key=lambda name: name not in ("prompt", "workflow")):
        problem = note_problem(name, notes.texts[name], form)
        if problem is None and name.lower() in taken:
            problem = "the name is taken"
        if problem is None and form.tags == "exif" and len(texts) >= MAX_EXIF_NOTES:
            problem = f"{form.name} has room for {MAX_EXIF_NOTES}"
        if problem is None:
            taken.add(name.lower())
            texts[name] = notes.texts[name]
        else:
            left_out[str(name)] = problem
    return Notes(texts, left_out)


def note_problem(name: object, text: str, form: VideoFormat) -> str | None:
    """Why a note cannot be kept in a format; None when it can."""
    if not isinstance(name, str) or not name.strip():
        return "its name is empty or no text"
    try:
        size, name_size = len(text.encode()), len(name.encode())
    except UnicodeEncodeError:
        return "it holds half a character"
    if name_size > MAX_NAME_BYTES:
        return f"its name has {name_size} bytes"
    if "\0" in name + text:
        return "it holds a NUL character"
    return _container_problem(name, text, size, form)


def _container_problem(name: str, text: str, size: int, form: VideoFormat) -> str | None:
    if form.tags == "exif":
        return "a colon ends names in this format" if ":" in name else None
    if form.tags == "comment":
        return None
    if name.lower() in OWN_NAMES[form.tags]:
        return "the format keeps this name for itself"
    if name.endswith("\\") or text.endswith("\\"):
        return "it ends with a backslash"
    if form.tags == "matroska" and " " in name:
        return "this format allows no spaces in names"
    if form.tags == "matroska" and size > MAX_MATROSKA_BYTES:
        return f"it has {size / 1e6:.1f} MB, the format keeps {MAX_MATROSKA_BYTES / 1e6:.1f}"
    return None


def left_out_text(left_out: Mapping[str, str]) -> str:
    """One sentence that names what a file does not keep; names are cut short, odd characters shown as codes."""
    shown = [f"{name[:SHOWN_NAME]!r} ({reason})" for name, reason in left_out.items()]
    more = [f"{len(shown) - SHOWN_NOTES} more"] if len(shown) > SHOWN_NOTES else []
    return (
        f"Notes that came with the prompt and are not in the file: {', '.join(shown[:SHOWN_NOTES] + more)}."
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


def lost_in(path: Path, form: VideoFormat, texts: Mapping[str, str]) -> dict[str, str]:
    """Which of the stored texts do not come back from a finished file, and why, by name."""
    if not texts:
        return {}
    try:
        found = read_metadata(path, form)
    except (OSError, ValueError, SyntaxError) as error:
        return dict.fromkeys(texts, f"nothing could be read back: {type(error).__name__}")
    back = {name: found.get(name, found.get(name.lower())) for name in texts}
    changed = "it came back changed"
    return {
        name: "it did not come back" if back[name] is None else changed
        for name, text in texts.items()
        if back[name] != text
    }


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


def _exif(texts: Mapping[str, str]) -> bytes:
    """A little-endian TIFF directory of texts (Exif 2.3, sections 4.5 and 4.6), one tag for each note."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tag = EXIF_OTHERS
    for name, text in texts.items():
        own = EXIF_PROMPT if name == "prompt" else tag
        # many of these tags are numbers by the book: what is stored says itself that it is text
        directory.tagtype[own] = TiffTags.ASCII
        directory[own] = f"{name}:{text}".encode()
        tag -= name != "prompt"
    return b"Exif\0\0II*\0\x08\0\0\0" + directory.tobytes(8)


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
            flags = EXIF_FLAG | (ALPHA_FLAG if picture.mode == "RGBA" else 0)
        target.write(_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides[0:3] + sides[4:7]))
        target.write(_chunk(kind, body[:size]))
    shutil.copyfileobj(source, target)
    target.write(_chunk(b"EXIF", _exif(metadata)))
    total = target.tell() - 8
    target.seek(4)
    target.write(struct.pack("<I", total))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)
