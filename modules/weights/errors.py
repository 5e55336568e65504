"""The error that a weight file raises, and the words that its messages are made of."""

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

# of a name or a key that a message holds
SHOWN_CHARACTERS = 200
AGAIN = "Download it again, or copy it again from where it is complete."
CLEAN_COPY = (
    "Look for a .safetensors copy (AnimateDiff's motion modules: conrevo/AnimateDiff-A1111 on Hugging Face), or convert "
    "it offline on a machine you can spare."
)
SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
RIGHTS = "ComfyUI may not read it: give its user the right to read the file and the folders around it"
REASONS = {
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EIO: "the drive gives an error: check the drive, and copy the file again from where it is complete",
    errno.ELOOP: "its links lead in a circle: put the file itself there",
    errno.EMFILE: "too many files are open: start ComfyUI again",
    errno.ENFILE: "too many files are open: close other programs",
    errno.ENOMEM: "there is no memory left: close other programs",
    errno.ESTALE: "the network drive no longer knows it: connect the drive again",
}


class CheckpointError(ValueError):
    """A weight file that cannot be used as it is. The message names the file and the remedy."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


def shown(text: object, longest: int = SHOWN_CHARACTERS) -> str:
    """A name, key or value out of a file as a message may hold it: escaped, and cut where it is long."""
    whole = str(text)
    start = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in whole[:longest]
    )
    if len(whole) <= longest and len(start) <= longest:
        return start
    return f"{start[:longest]}... ({len(whole)} characters)"


def shown_list(names: Iterable[object], most: int = 5) -> str:
    """The first few of many names or keys, and how many more there are."""
    names = list(names)
    more = len(names) - most
    return ", ".join(shown(name) for name in names[:most]) + (f" and {more} more" if more > 0 else "")


def reason(problem: OSError) -> str:
    """Why the system does not give a file, and what to do, without the system's own words."""
    code = problem.errno or 0
    return REASONS.get(code, f"the system refuses it ({errno.errorcode.get(code, 'without a reason')})")


def unreadable(file: Path, problem: OSError) -> "CheckpointError":
    """The error for a file or folder that the system does not give."""
    if isinstance(problem, (FileNotFoundError, NotADirectoryError)):
        return CheckpointError(gone(file))
    return CheckpointError(f"{shown(file.name)} cannot be read: {reason(problem)}.")


def gone(file: Path) -> str:
    """What to say of a file that is not there, or of a link to nothing."""
    if file.is_symlink():
        return f"{shown(file.name)} is a link to something that is not there. Put the file itself there."
    return f"{shown(file.name)} is not there. Put it into its model folder and refresh the list."


def special_kind(mode: int) -> str | None:
    """What something is that is no regular file and must not be opened: reading may wait for ever."""
    return None if stat.S_ISREG(mode) else SPECIAL.get(stat.S_IFMT(mode), "no file")
