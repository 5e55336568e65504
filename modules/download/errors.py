"""The errors of a download, and amounts of bytes in words."""


class DownloadError(ValueError):
    """A download cannot be made or ended as asked; the text says what came, what fits and what to do."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


class ConnectionBreak(Exception):
    """A connection failed or ended early: worth another try."""


def amount(size: float) -> str:
    """Bytes for people."""
    for unit, bytes in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes:
            return f"{size / bytes:.2f} {unit}"
    return f"{size:.0f} bytes"
