"""One file from the hub: into a hidden part beside its place, checked to the last byte, then under its name."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from ..videofile.errors import reason
from ..videofile.workspace import appear, flush_folder
from .errors import ConnectionBreak, DownloadError, amount
from .hub import Hub, HubFile
from .patience import TICK_SECONDS, Tick, patiently, rest
from .plan import Item, size_of, taken

READ_BYTES = 2**22
# called with the bytes of the part that are there
Grown = Callable[[int], None]


@dataclass(frozen=True)
class Fetched:
    """A file that is there, whole. Without a hash where nobody read it."""

    item: Item
    sha256: str | None
    was_here: bool = False


class Digest:
    """The hashes of bytes as they come: SHA-256, and git's of small files."""

    def __init__(self, file: HubFile):
        self.file = file
        self._sha256 = hashlib.sha256()
        # as git counts it: not for safety, the hub tells nothing else of small files
        self._blob = hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        if self.file.sha256 is None:
            self._blob.update(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def identity(self) -> str:
        """The hash that the file is told by."""
        return self.sha256 if self.file.sha256 else self._blob.hexdigest()


def digest_of(path: Path, file: HubFile, tick: Tick) -> Digest:
    """The hashes of what lies at a path."""
    digest = Digest(file)
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            tick()
            digest.update(block)
    return digest


class WrongBytes(DownloadError):
    """What came is not the file: none of it is kept."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


class Part:
    """The bytes of a file that are there so far, and their hashes."""

    def __init__(self, item: Item, tick: Tick):
        self._file = item.file
        if size_of(item.part) > item.file.bytes:
            item.part.unlink()
        self.digest = digest_of(item.part, item.file, tick) if item.part.exists() else Digest(item.file)
        self._stream = item.part.open("ab")
        self.size = self._stream.tell()

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, place: int, block: bytes) -> None:
        """Add what comes at a place: behind what is there, or from the start once more."""
        if place != self.size:
            self._stream.truncate(place)
            self.digest, self.size = Digest(self._file), place
        if self.size + len(block) > self._file.bytes:
            raise WrongBytes(
                f"More than {self._file.bytes:,} bytes came of {self._file.path}, which the hub lists with so many: "
                "nothing of it is kept. Try again later."
            )
        self._stream.write(block)
        self.digest.update(block)
        self.size += len(block)

    def finish(self) -> None:
        """Wait until all is on the disk; WrongBytes where it is not the file."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self.digest.identity != self._file.identity:
            raise WrongBytes(
                f"The bytes of {self._file.path} are not those of the file: their hash is {self.digest.identity}, it "
                f"should be {self._file.identity}. Nothing of it is kept. Try again, or fetch it in a browser."
            )


def fetch_file(hub: Hub, item: Item, tick: Tick, grown: Grown) -> Fetched:
    """Bring one file; `grown` and `tick` may raise to end it, which leaves the part for the next time.

    DownloadError says what stands in the way. Nothing but the right bytes gets the final name.
    """
    try:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(item, tick):
            if os.path.lexists(item.target):
                return compare(item, tick)
            with Part(item, tick) as part:
                _fill(hub, item, part, tick, grown)
                part.finish()
            return _show(item, part.digest, tick)
    except OSError as problem:
        raise DownloadError(
            f"{item.target} cannot be written: {reason(problem)}. {amount(size_of(item.part))} of "
            f"{amount(item.file.bytes)} are kept for the next run."
        ) from problem


@contextmanager
def _alone(item: Item, tick: Tick) -> Iterator[None]:
    """Nobody else fetches the same file meanwhile: whoever comes second waits. Leaves no part that is of no use."""
    from filelock import FileLock, Timeout

    lock = FileLock(item.part.with_suffix(".lock"))
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            rest(TICK_SECONDS, tick)
    try:
        yield
    except WrongBytes:
        item.part.unlink(missing_ok=True)
        raise
    finally:
        if not size_of(item.part):
            item.part.unlink(missing_ok=True)
        lock.release()
        if os.path.lexists(item.target):
            # whoever still waits for it sees the target first
            with suppress(OSError):
                item.part.with_suffix(".lock").unlink()


def _fill(hub: Hub, item: Item, part: Part, tick: Tick, grown: Grown) -> None:
    """Add to the part until it has all bytes; a connection that breaks is opened again while it brings more."""
    tries, most = 0, part.size
    while part.size < item.file.bytes:
        problem = _add(hub, item, part, tick, grown)
        if part.size >= item.file.bytes:
            return
        tries, most = (0, part.size) if part.size > most else (tries, most)
        if tries == len(hub.pauses):
            raise DownloadError(
                f"The connection breaks off again and again ({problem}). {amount(part.size)} of {item.file.path} are "
                f"there, of {amount(item.file.bytes)}; they are kept, and the next run goes on from there."
            )
        rest(hub.pauses[tries], tick)
        tries += 1


def _add(hub: Hub, item: Item, part: Part, tick: Tick, grown: Grown) -> str:
    """Add what one connection brings; why it ended."""
    try:
        for place, block in patiently(hub.blocks(item.repository, item.file, part.size), tick):
            part.write(place, block)
            grown(part.size)
    except ConnectionBreak as problem:
        return str(problem)
    return "it ended early"


def _show(item: Item, digest: Digest, tick: Tick) -> Fetched:
    """Give the whole part its final name, which it never takes from another file."""
    if not appear(item.part, item.target):
        return compare(item, tick)
    flush_folder(item.target.parent)
    # what was begun of it, and of others that it was before
    for part in item.target.parent.glob(f".{escape(item.target.name)}.*.part"):
        part.unlink(missing_ok=True)
    return Fetched(item, digest.sha256)


def compare(item: Item, tick: Tick) -> Fetched:
    """The file that has the name, read to its end; DownloadError where it is another one than the hub's."""
    if size_of(item.target) == item.file.bytes:
        digest = digest_of(item.target, item.file, tick)
        if digest.identity == item.file.identity:
            return Fetched(item, digest.sha256, was_here=True)
        raise DownloadError(taken(item.target, item.file, f"hash {digest.identity}"))
    raise DownloadError(taken(item.target, item.file, f"{size_of(item.target):,} bytes"))
