"""The errors that writing a video raises."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
SHORT = (*FULL, *OUT_OF_FILES, errno.ENOMEM, errno.EAGAIN)
ENDING = "Nothing was left behind."
GONE, FORBIDDEN = "it is not there", "this user has no right to it"
TOO_MANY = "too many files are open on this computer (restart ComfyUI, or raise its limit: ulimit -n)"
DRIVE = "its drive does not answer"
REASONS = {
    errno.ENOENT: GONE,
    errno.ENOTDIR: "a file lies where a folder should be",
    errno.EISDIR: "a folder lies where a file should be",
    errno.EACCES: FORBIDDEN,
    errno.EPERM: FORBIDDEN,
    errno.EROFS: "its disk is read-only",
    errno.ENAMETOOLONG: "its name is too long for this disk",
    errno.EIO: "its disk is failing",
    errno.ENOMEM: "memory ran out",
    errno.EAGAIN: "too many programs are running on this computer",
    **dict.fromkeys(OUT_OF_FILES, TOO_MANY),
    **dict.fromkeys(FULL, "its disk is full"),
    **{code: DRIVE for name in ("ESTALE", "ENOTCONN", "ETIMEDOUT") if (code := getattr(errno, name, None))},
}


class VideoError(ValueError):
    """A video cannot be written as asked; the text says what came, what fits and what to do."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


class Shortage(VideoError):
    """This computer lacks something for now (disk, memory, files, ffmpeg itself); no format is to blame."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


class DiskFull(Shortage):
    """There is no room for the video."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


def reason(error: OSError) -> str:
    """Why the system refused a file, a folder or a program, in our words: its own may hold paths."""
    code = error.errno or 0
    return REASONS.get(code, f"this computer refused it ({errno.errorcode.get(code, 'unknown cause')})")


def refusal(error: OSError, free: str = "") -> VideoError:
    """What to say when files could not be written into the output folder; `free` is the room there, in words."""
    words = f"Cannot write into the output folder: {reason(error)}"
    if error.errno in FULL:
        room = f" ({free} are free)" if free else ""
        return DiskFull(f"{words}{room}. Free some space or choose another output folder. {ENDING}")
    if error.errno in SHORT:
        return Shortage(f"{words}. Try again when that is over. {ENDING}")
    return VideoError(
        f"{words}. Make it again or choose another filename_prefix, and see that ComfyUI may write there. {ENDING}"
    )


@contextmanager
def in_our_words() -> Iterator[None]:
    """Around work on the output folder: what the system refuses becomes a VideoError."""
    try:
        yield
    except OSError as error:
        raise refusal(error) from error
