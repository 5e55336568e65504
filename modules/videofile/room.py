"""How much room a clip takes on its disk, for the words of an error."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import ENDING

ROOM = 16_000_000  # bytes: a disk with more than this was not filled by a clip


@dataclass(frozen=True)
class Usage:
    """What lay on the disk when it took no more, in bytes and frames."""

    free: int
    made: int  # of the video
    raw: int  # of frames kept to be played again
    arrived: int
    arriving: int | None  # in all; None: nobody knows
    encoded: int
    planned: int | None  # that will be encoded in all

    @property
    def before(self) -> int:
        """What was free for the clip."""
        return self.free + self.made + self.raw

    def needed(self) -> float:
        """What the whole clip needs at least: the encoder lags behind the frames that it was given."""
        return grown(self.made, self.encoded, self.planned) + grown(self.raw, self.arrived, self.arriving)

    def text(self) -> str:
        """What was free, what is needed and what was taken, and what to do."""
        frames = self.encoded if self.planned is None else f"{self.encoded} of {self.planned}"
        took = (
            f"{amount(self.made + self.raw)} were written when the encoder had {frames} frames, "
            f"{amount(self.free)} are free now"
        )
        if self.free > ROOM:
            return (
                f"The disk takes no more, although there is room: {took}. Perhaps a quota is used up, or the "
                f"number of files that it can hold. Choose another output folder. {ENDING}"
            )
        needed = self.needed()
        need = (
            f"at least about {amount(needed)}" if needed > self.before else f"more than {amount(self.before)}"
        )
        return (
            f"The disk is full: {amount(self.before)} were free for this clip, {need} are needed ({took}). Free "
            f"some space, choose another output folder, or a format or crf that makes smaller files. {ENDING}"
        )


def grown(size: int, done: int, total: int | None) -> float:
    """A size when all is done, from the size when so much was done."""
    return size * total / done if total and 0 < done < total else size


def on_disk(stat: os.stat_result) -> int:
    """Bytes that a file takes: whole blocks, where the system counts them and has set them aside already."""
    return max(stat.st_size, getattr(stat, "st_blocks", 0) * 512)


def free_bytes(folder: Path) -> int:
    """What may still be written into a folder; 0 when nobody can tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def amount(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
