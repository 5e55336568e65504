"""Which names a result may get: a file name on every system, inside the output folder, said before work begins."""

from pathlib import Path

from .trouble import VideoError

MAX_BYTES = 120
FORBIDDEN = '\\:*?"<>|'  # not possible in names on Windows, or a path of their own there
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
RULES = (
    f"use up to {MAX_BYTES} bytes of printable characters without {' '.join(FORBIDDEN)}; folders are divided by "
    "'/', and no part may be empty, start with '-', '.' or a space, end with '.' or a space, or be a device name"
)


def check_prefix(prefix: object, root: Path) -> None:
    """Raise VideoError unless `prefix` is a harmless name below the folder `root`, symlinks followed."""
    problem = prefix_problem(prefix) if isinstance(prefix, str) else "it is no text"
    if problem is None and not stays_inside(str(prefix), root):
        problem = "a link leads out of the output folder"
    if problem:
        raise VideoError(f"filename_prefix {str(prefix)[:60]!r} cannot be used: {problem}. Please {RULES}.")


def prefix_problem(prefix: str) -> str | None:
    """What is wrong with a prefix as a name; None when nothing is."""
    size = len(prefix.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        return f"it has {size} bytes"
    found = sorted({char for char in prefix if char in FORBIDDEN})
    if "%date:" in prefix:
        return "%date:...% is filled in by the browser only; in an API prompt use %year%-%month%-%day%"
    if found:
        return f"it contains {' '.join(found)}"
    if not prefix.isprintable():
        return "it contains a character that cannot be printed, such as a line break"
    return next((problem for part in prefix.split("/") if (problem := _part_problem(part))), None)


def _part_problem(part: str) -> str | None:
    if not part:
        return "it is empty, starts or ends with '/', or has '//' in it"
    if part[0] in "-. " or part[-1] in ". ":
        return f"the part {part!r} starts or ends with a character that is not allowed there"
    if part.split(".")[0].strip().upper() in RESERVED:
        return f"the part {part!r} is the name of a device on Windows"
    return None


def stays_inside(prefix: str, root: Path) -> bool:
    """Whether the folder that `prefix` leads to is `root` or below it, after symlinks."""
    return (root / prefix).parent.resolve().is_relative_to(root.resolve())
