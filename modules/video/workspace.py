"""A hidden folder beside the target where a file is made, and the one step that shows it to the world."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from .trouble import VideoError

PREFIX = ".kinetograph-"
ORPHAN_SECONDS = 24 * 3600
MAX_COUNTER = 99_999_999


class Workspace:
    """Makes a folder of its own inside the target's folder, hence on the same filesystem; gone afterwards.

    What a killed process left behind is removed a day later, by the next one that works in that folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = Path()

    def __enter__(self) -> "Workspace":
        try:
            sweep_orphans(self.folder)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.folder)).resolve()
        except OSError as error:
            raise VideoError(
                f"Cannot write into the output folder: {error.strerror}. Check that it exists, that it may be "
                "written to and that the disk is not full."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name: str) -> Path:
        return self.path / name

    def size(self) -> int:
        """Bytes that lie in the workspace."""
        return sum(entry.stat().st_size for entry in os.scandir(self.path))

    def publish(self, made: Path, name: str, counter: int, suffix: str) -> Path:
        """Show a finished file as `name_counter_suffix`, with the next free counter; never replaces a file."""
        flush(made)
        for number in range(counter, MAX_COUNTER):
            final = self.folder / f"{name}_{number:05}_{suffix}"
            if appear(made, final):
                flush_folder(self.folder)
                return final
        raise VideoError(f"All numbers after {name} are taken: choose another filename_prefix.")


def appear(made: Path, final: Path) -> bool:
    """Give a finished file its final name in one step; False when the name is taken."""
    try:
        os.link(made, final)  # unlike a rename it refuses to replace
    except FileExistsError:
        return False
    except OSError:  # no hard links here: exFAT, some network drives
        if final.exists():
            return False
        os.rename(made, final)
    return True


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk; OSError when the disk refuses them."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network filesystems have no such call for folders
        pass
    finally:
        os.close(descriptor)


def sweep_orphans(folder: Path, age: float = ORPHAN_SECONDS) -> int:
    """Remove our own workspaces in `folder` that nobody touched for `age` seconds; how many."""
    before = time.time() - age
    with os.scandir(folder) as entries:
        ours = [
            Path(e.path) for e in entries if e.name.startswith(PREFIX) and e.is_dir(follow_symlinks=False)
        ]
    old = [path for path in ours if last_touched(path) < before]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def last_touched(path: Path) -> float:
    """When a folder or a file in it last changed, in seconds since the epoch."""
    try:
        with os.scandir(path) as entries:
            return max([path.stat().st_mtime, *(e.stat(follow_symlinks=False).st_mtime for e in entries)])
    except FileNotFoundError:  # its owner has just finished
        return time.time()


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
