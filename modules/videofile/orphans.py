"""Workspaces that a killed process left behind: whose a workspace is, and when it may go.

A workspace holds a file that its process keeps open and locked, with host, boot and process in it. The system
opens the lock when the process ends, however it ends. What is unlocked and of this host and boot is an orphan;
the lock of another machine in a shared folder may be invisible here, so anything else goes after a day.
"""

import json
import math
import os
import platform
import shutil
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PREFIX = ".kinetograph-"
OWNER = "owner.json"
OWNER_BYTES = 4096
ORPHAN_SECONDS = 24 * 3600
SWEEP_SECONDS = 1.0  # for all folders at the start
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False when somebody has done so."""
        os.lseek(descriptor, OWNER_BYTES, os.SEEK_SET)  # a byte behind the text, which stays readable
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False when somebody has done so. OSError: no locks here."""
        try:
            # flock and not lockf, whose locks go as soon as this process closes the file anywhere
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def claim(folder: Path) -> int | None:
    """Say that this process works in `folder`: an open, locked file, to be closed at the end.

    None where files cannot be locked, as on some network drives: there the folder is anybody's after a day.
    """
    descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if can_lock(descriptor):
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps({**this_boot(), "process": os.getpid()}).encode())
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    os.unlink(folder / OWNER)
    return None


def can_lock(descriptor: int) -> bool:
    with suppress(OSError):
        return try_lock(descriptor)
    return False


def this_boot() -> dict[str, str]:
    """Names this machine and, where the system tells it, the time since it was switched on."""
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        boot = f"{uuid.getnode():012x}"  # the network card, or a number of this process alone
    return {"host": platform.node(), "boot": boot}


def sweep_orphans(folder: Path, age: float = ORPHAN_SECONDS) -> int:
    """Remove workspaces in `folder` that nobody works in any more; how many. Never fails, follows no links."""
    return sum(remove_orphan(path, age) for path in folders_in(folder) if path.name.startswith(PREFIX))


def sweep_below(roots: Iterable[Path], seconds: float = SWEEP_SECONDS) -> int:
    """`sweep_orphans` in folders and all below them, nearest first, until time is up."""
    deadline = time.monotonic() + seconds
    waiting, removed = deque(roots), 0
    while waiting:
        for path in folders_in(waiting.popleft(), deadline):
            if path.name.startswith(PREFIX):
                removed += remove_orphan(path)
            elif not path.name.startswith("."):
                waiting.append(path)
    return removed


def folders_in(folder: Path, deadline: float = math.inf) -> list[Path]:
    """The folders in a folder, without links; as many as can be read and are found in time."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if time.monotonic() > deadline:
                break
            if entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
    return found


def remove_orphan(path: Path, age: float = ORPHAN_SECONDS) -> bool:
    """Remove a workspace if nobody works in it any more; whether it is gone."""
    with suppress(OSError):
        if is_orphan(path, age):
            shutil.rmtree(path, ignore_errors=True)
            return not path.exists()
    return False


def is_orphan(path: Path, age: float) -> bool:
    """Whether nobody works in a workspace: unlocked, and of this boot or untouched for `age` seconds."""
    owner, old = path / OWNER, last_touched(path) < time.time() - age
    if owner.is_symlink() or not owner.is_file():
        return old
    with owner.open("rb+") as stream:
        # A lock is tried for no other: its process may be about to take it.
        if not old and not is_of_this_boot(stream.read(OWNER_BYTES)):
            return False
        try:
            return try_lock(stream.fileno())
        except OSError:
            return old


def is_of_this_boot(said: bytes) -> bool:
    try:
        owner = json.loads(said)
        return {key: owner[key] for key in ("host", "boot")} == this_boot()
    except (ValueError, TypeError, KeyError, RecursionError):  # half a text, or nobody's
        return False


def last_touched(path: Path) -> float:
    """When a folder or a file in it last changed, in seconds since the epoch."""
    with os.scandir(path) as entries:
        return max([path.stat().st_mtime, *(e.stat(follow_symlinks=False).st_mtime for e in entries)])
