"""Which names a result may get: a file name on every system, inside the output folder, said before work begins.

A prefix may hold tokens between percent signs. The host's own (`%year%`, `%width%`, ...) are left to the host;
`%date:yyyy-MM-dd%` and `%Node.widget%`, which ComfyUI's page fills in for some of the host's nodes alone, are
filled in here.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import VideoError

MAX_BYTES = 120  # of a prefix as typed
MAX_PART_BYTES = 200  # of a folder or name when all is filled in: systems allow 255, the counter takes some
MAX_VALUE_BYTES = 60  # of what a widget's value becomes
FORBIDDEN = ':*?"<>|'  # not possible in names on Windows, or a path of their own there
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
RULES = (
    f"use up to {MAX_BYTES} bytes of printable characters without {' '.join(FORBIDDEN)}; folders are divided by "
    "'/', and no part may be empty, start with '-', '.' or a space, end with '.' or a space, or be a device name"
)
HOST_TOKENS = ("year", "month", "day", "hour", "minute", "second", "width", "height")
TOKENS = (
    f"%date:yyyy-MM-dd%, %Node.widget% with the title of a node and the name of its widget, or "
    f"{', '.join(f'%{word}%' for word in HOST_TOKENS)}"
)
# A date, a title with a widget behind the last dot, or one word; any other percent sign is only a percent sign.
TOKEN = re.compile(r"%(?:date:(?P<date>[^%]*)|(?P<path>[^%\s/][^%/]*\.[A-Za-z_]\w*)|(?P<word>[A-Za-z_]+))%")
# the words of ComfyUI's page, which leaves yyy as it is
DATE_WORD = re.compile("yyyy?|yy|MM?|dd?|hh?|mm?|ss?")


def check_prefix(prefix: object, root: Path) -> None:
    """Raise VideoError unless `prefix` is a harmless name below the folder `root`, symlinks followed.

    Tokens are checked as far as they can be without the prompt: their spelling.
    """
    problem = prefix_problem(prefix) if isinstance(prefix, str) else "it is no text"
    if problem is None and not stays_inside(with_slashes(str(prefix)), root):
        problem = "a link leads out of the output folder"
    if problem:
        raise VideoError(f"filename_prefix {str(prefix)[:60]!r} cannot be used: {problem}. Please {RULES}.")


def fill_prefix(prefix: str, prompt: Mapping[str, Any] | None, now: datetime, root: Path) -> str:
    """A checked prefix with its dates and widget values filled in; what the host fills in stays.

    `prompt` is the prompt that runs, node id -> {"class_type", "inputs", "_meta"}. VideoError when a token names
    no node or widget of it, or several, or when the result is no name below `root`.
    """
    check_prefix(prefix, root)

    def filled(token: re.Match[str]) -> str:
        if token["date"] is not None:
            return as_date(token["date"], now)
        return token[0] if token["path"] is None else as_name(widget_value(token["path"], prompt or {}))

    name = TOKEN.sub(filled, with_slashes(prefix))
    problem = next((problem for part in name.split("/") if (problem := _part_problem(part))), None)
    if problem is None and not stays_inside(name, root):
        problem = "a link leads out of the output folder"
    if problem:
        raise VideoError(
            f"filename_prefix {prefix[:60]!r} becomes {name[:60]!r}, which is no name: {problem}."
        )
    return name


def with_slashes(prefix: str) -> str:
    """Folders divided as everywhere but on Windows."""
    return prefix.replace("\\", "/")


def prefix_problem(prefix: str) -> str | None:
    """What is wrong with a prefix as a name; None when nothing is."""
    size = len(prefix.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        return f"it has {size} bytes"
    if not prefix.isprintable():
        return "it contains a character that cannot be printed, such as a line break"
    if problem := next(filter(None, map(_token_problem, TOKEN.finditer(with_slashes(prefix)))), None):
        return problem
    bare = TOKEN.sub("0", with_slashes(prefix))
    if found := sorted({char for char in bare if char in FORBIDDEN}):
        return f"it contains {' '.join(found)}"
    return next((problem for part in bare.split("/") if (problem := _part_problem(part))), None)


def _token_problem(token: re.Match[str]) -> str | None:
    if token["word"] is not None and token["word"] not in HOST_TOKENS:
        return f"{token[0]} looks like a value to fill in, and is none: use {TOKENS}"
    if token["date"] is not None and not DATE_WORD.search(token["date"]):
        return f"{token[0]} names no part of a date: use yyyy, yy, MM, dd, hh, mm or ss"
    return None


def _part_problem(part: str) -> str | None:
    if not part:
        return "it is empty, starts or ends with '/', or has '//' in it"
    if part[0] in "-. " or part[-1] in ". ":
        return f"the part {part!r} starts or ends with a character that is not allowed there"
    if part.split(".")[0].strip().upper() in RESERVED:
        return f"the part {part!r} is the name of a device on Windows"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"the part {part[:40]!r}... is longer than {MAX_PART_BYTES} bytes"
    return None


def stays_inside(prefix: str, root: Path) -> bool:
    """Whether the folder that `prefix` leads to is `root` or below it, after symlinks."""
    return (root / prefix).parent.resolve().is_relative_to(root.resolve())


def as_date(words: str, now: datetime) -> str:
    """`words` with the parts of a date in place of yyyy, yy, MM, M, dd, d, hh, h, mm, m, ss and s."""
    parts = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}
    years = {"yyyy": f"{now.year:04}", "yyy": "yyy", "yy": f"{now.year % 100:02}"}
    text = DATE_WORD.sub(lambda m: years.get(m[0]) or f"{parts[m[0][0]]:0{len(m[0])}}", words)
    return "/".join(as_name(part) for part in text.split("/"))


def as_name(text: str) -> str:
    """Any text as a part of a name: what a name may not hold becomes '_', and it ends early."""
    clean = re.sub(r'[/\\:*?"<>|%]|[^ \S]', "_", text)
    clean = "".join(char if char.isprintable() else "_" for char in clean)
    short = clean.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")
    return short.lstrip(" .-").rstrip(" .") or "_"


def widget_value(path: str, prompt: Mapping[str, Any]) -> str:
    """The value behind "Node.widget" in a prompt, the node by its title or else by its class."""
    found = list(_fitting(path, prompt, _title)) or list(_fitting(path, prompt, _kind))
    if len(found) != 1:
        said = "fits no node of this prompt" if not found else f"fits {len(found)} nodes of this prompt"
        raise VideoError(
            f"filename_prefix: %{path}% {said}. Write the title of one node, a dot, and the name of one of its "
            "widgets, as in %Video Sampler.seed%."
        )
    if isinstance(found[0], list | dict):
        raise VideoError(
            f"filename_prefix: the value of %{path}% comes from another node and is not known here. Name that "
            "node and its widget instead."
        )
    return str(found[0])


def _fitting(path: str, prompt: Mapping[str, Any], name_of: Any) -> Iterator[Any]:
    """Values of every node and input that `path` can mean; titles and inputs may have dots in them."""
    for node in prompt.values():
        start = f"{name_of(node)}."
        if path.startswith(start) and path[len(start) :] in node.get("inputs", {}):
            yield node["inputs"][path[len(start) :]]


def _title(node: Mapping[str, Any]) -> str:
    return (node.get("_meta") or {}).get("title", "")


def _kind(node: Mapping[str, Any]) -> str:
    return node.get("class_type", "")
