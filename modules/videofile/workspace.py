"""A hidden folder beside the target where a file is made, and the one step that shows it to the world."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .errors import VideoError, refusal
from .orphans import OWNER, PREFIX, claim, sweep_orphans
from .room import amount, free_bytes, on_disk

MAX_COUNTER = 99_999_999


class Workspace:
    """Makes a folder of its own inside the target's folder, hence on the same filesystem; gone afterwards.

    What a killed process left behind is removed by the next one that works in that folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = Path()
        self._owner: int | None = None  # the open file that says so

    def __enter__(self) -> "Workspace":
        sweep_orphans(self.folder)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.folder)).resolve()
        except OSError as error:
            raise self.refusal(error) from error
        try:
            self._owner = claim(self.path)
        except OSError as error:
            self._remove()
            raise self.refusal(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        self._remove()

    def _remove(self) -> None:
        if self._owner is not None:
            os.close(self._owner)
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # rmtree needs open files, and there may be none to have
            (self.path / OWNER).unlink(missing_ok=True)
            self.path.rmdir()

    def refusal(self, error: OSError) -> VideoError:
        """What to say when something could not be read or written here."""
        return refusal(error, amount(free_bytes(self.folder)))

    def check_there(self) -> None:
        """VideoError when somebody took the folder away while it was in use."""
        if not self.path.is_dir():
            raise VideoError(
                "The output folder was moved, removed or replaced while the video was written into it: make it "
                "again, or choose another filename_prefix."
            )

    def file(self, name: str) -> Path:
        return self.path / name

    def size(self) -> int:
        """Bytes that the video takes so far."""
        with os.scandir(self.path) as entries:
            return sum(on_disk(entry.stat(follow_symlinks=False)) for entry in entries if entry.name != OWNER)

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
    # Some network filesystems have no such call for folders; the file is whole anyway.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
