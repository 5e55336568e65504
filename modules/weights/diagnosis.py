"""Why a weight file cannot be opened, in words a user can act on. Nothing here executes what it reads."""

import json
import pickletools
import re
import struct
from pathlib import Path

from .errors import AGAIN, CLEAN_COPY, gone, shown, special_kind, unreadable

HEAD_BYTES = 64 * 1024
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_FILE_BYTES = 2**63  # what a file system can count
APPLE_DOUBLE = b"\x00\x05\x16\x07"
HARMLESS = ("torch", "collections", "numpy", "_codecs", "__builtin__", "builtins.set", "builtins.dict")


def diagnose(file: Path) -> str:
    """One or two sentences: what `file` is instead of a readable file of weights, and what to do."""
    try:
        found = file.stat()
        if special := special_kind(found.st_mode):
            return f"{shown(file.name)} is {special}, not a file with weights. Choose a .safetensors file."
        if not _is_text(str(file)):  # the parser takes none of those
            return (
                f"{shown(file.name)} lies under a name that is no text in UTF-8. Give the file, and the folders it "
                "lies in, names of plain letters."
            )
        head = b""
        if found.st_size:  # the system's own pseudo files have no size, and may keep a reader waiting
            with file.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
    except OSError as problem:
        return str(unreadable(file, problem))
    except ValueError:  # no file can have such a name
        return gone(file)
    return f"{shown(file.name)} {_describe(file, head, found.st_size)}"


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _describe(file: Path, head: bytes, size: int) -> str:
    if size == 0:
        return f"is an empty file. {AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return (
            f"is a git-LFS pointer{_lfs_size(head)}, not the file itself. Run `git lfs pull`, or download it."
        )
    start = head[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            f"is an HTML page of {size} bytes, saved under a checkpoint's name. Download the file itself; the "
            "site may ask for a log-in or for its terms to be accepted first."
        )
    if head.startswith(APPLE_DOUBLE):
        return (
            "is what macOS keeps beside a file on foreign drives, not the file itself. Choose the file whose name "
            "does not begin with `._`."
        )
    if head.startswith(b"PK\x03\x04"):
        return f"is a zip file that cannot be read to its end. {AGAIN}"
    if _is_pickle(head):
        return _describe_pickle(_pickle_globals(head))
    if head.startswith(b"GGUF"):
        return "is a GGUF file, which is not supported. Choose a .safetensors file."
    return _describe_safetensors(file, head, size)


def _lfs_size(head: bytes) -> str:
    for line in head.decode("utf-8", "replace").splitlines():
        word, _, value = line.partition(" ")
        if word == "size" and re.fullmatch("[0-9]{1,19}", value):
            return f" to a file of {int(value)} bytes"
    return ""


def _is_pickle(head: bytes) -> bool:
    """Protocol 2 to 5 announce themselves by 0x80 and the protocol's number."""
    return len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5)


def _describe_pickle(names: list[str]) -> str:
    odd = [name for name in names if not name.startswith(HARMLESS)]
    calls = f" This one calls {', '.join(odd[:3])}." if odd else ""
    return (
        "is a pickle file (.ckpt, .pt, .pth or .bin) without the zip container that torch has written since 1.6. It can "
        f"run code of whoever made it, so it is not opened.{calls} {CLEAN_COPY}"
    )


def _pickle_globals(content: bytes) -> list[str]:
    """Names a pickle would import, read from its opcodes without running them."""
    names: list[str] = []
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, struct.error, IndexError, OverflowError, EOFError):
        pass  # damaged: the names found so far still help
    return sorted({name for name in names if name.isprintable() and len(name) < 100})


def _describe_safetensors(file: Path, head: bytes, size: int) -> str:
    """Compare the length a safetensors header promises with the length that is there."""
    other = f"is not a safetensors file, nor a torch checkpoint, or its beginning is damaged ({size} bytes). {AGAIN}"
    header = struct.unpack("<Q", head[:8])[0] if size >= 8 else 0
    if not 2 <= header <= MAX_HEADER_BYTES or head[8:9] not in (b"{", b""):
        return other
    if 8 + header > size:
        return f"is cut off: its header alone takes {8 + header} bytes, {size} bytes are there. {AGAIN}"
    expected = _expected_size(file, header)
    if expected is None:
        return f"has a damaged header. {AGAIN}"
    if expected > size:
        return f"is cut off: {expected} bytes are expected, {size} bytes are there. {AGAIN}"
    if expected < size:
        return f"is too long: {expected} bytes are expected, {size} bytes are there. {AGAIN}"
    return f"has a header that contradicts itself or names an unknown dtype. {AGAIN}"


def _expected_size(file: Path, header: int) -> int | None:
    """File length that the header's offsets add up to; None when the header makes no sense."""
    try:
        with file.open("rb") as stream:
            entries = json.loads(stream.read(8 + header)[8:])
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OSError):
        return None
    if not all(isinstance(end, int) and 0 <= end < MAX_FILE_BYTES for end in ends):
        return None
    return 8 + header + max(ends, default=0)
