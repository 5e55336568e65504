"""What a data set holds, and what of it had to be left out, in words for the person whose data it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ...weights.errors import shown_list

Kind = Literal["video", "image"]
# suffixes of files
VIDEOS = {".mp4", ".avi", ".mov", ".webm", ".mkv", ".flv", ".m4v"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
# names that a sentence of a report shows
SHOWN = 3
# pixels on a side below which nothing is trained: the masks and the VAEs have no room
LEAST_SIDE = 16


class BadItem(ValueError):
    """One item cannot be used; the text is the reason, as a clause behind its name's count."""


@dataclass(frozen=True)
class Footage:
    """Frames that lie in a file or in memory, read by their numbers."""

    num_frames: int
    width: int
    height: int
    # frames per second; None: a picture
    rate: float | None
    # numbers in rising order -> each (h, w, 3) uint8, when somebody wants it; BadItem where the file breaks off
    read: Callable[[Sequence[int]], Iterator[Tensor]]


@dataclass(frozen=True)
class Item:
    """A clip or a picture with its caption."""

    # its place in the data set, bad items counted, for random numbers
    index: int
    # below the data folder, as people know it
    name: str
    kind: Kind
    # None where it has no caption
    text: str | None
    # of its file; empty where frames are in memory
    path: str = ""
    # seconds: only this part of a video counts, 0: all that follows
    begin: float = 0.0
    seconds: float = 0.0
    # of a clip or picture that the model is to follow, frame by frame
    control: str = ""
    # an epoch holds it so many times
    repeat: int = 1
    # what SVD is told of its motion, of 255; None: what its frames show
    bucket: float | None = None
    # of frames in memory, and what tells them from others
    source: Footage | None = None
    digest: str = ""


@dataclass(frozen=True)
class Problem:
    """An item that cannot be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What was left out of so many items."""

    total: int = 0
    problems: tuple[Problem, ...] = ()
    # sentences on what is used, but not as the words of the configuration have it
    notes: tuple[str, ...] = ()

    def with_problems(self, problems: Iterable[Problem]) -> "Report":
        """This one and further problems of the same items."""
        return Report(self.total, (*self.problems, *problems), self.notes)

    def with_notes(self, notes: Iterable[str]) -> "Report":
        """This one and further notes."""
        return Report(self.total, self.problems, (*self.notes, *notes))

    @property
    def counts(self) -> dict[str, int]:
        """How many items were left out, by reason."""
        return {reason: len(names) for reason, names in self._by_reason().items()}

    def sentences(self) -> Iterator[str]:
        """One for each reason, with the first names, then the notes."""
        for reason, names in self._by_reason().items():
            yield f"{len(names)} of {self.total} left out: {reason} ({shown_list(names, SHOWN)})."
        yield from self.notes

    def _by_reason(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for problem in self.problems:
            names.setdefault(problem.reason, []).append(problem.name)
        return names


@dataclass(frozen=True)
class DataSet:
    """The items of a folder that can be used, as far as their list tells."""

    # of the data set, for messages
    name: str
    items: tuple[Item, ...]
    report: Report


def kind_of(path: Path) -> Kind:
    """What a file is by its name; BadItem for neither video nor picture."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return "video"
    if suffix in IMAGES:
        return "image"
    raise BadItem(f"its name ends in {suffix or 'nothing'}, which is no video or picture that can be read")


def rows(items: Iterable[Item], video_repeat: int = 1) -> list[Item]:
    """The items of an epoch: each as often as its folder says, videos `video_repeat` times that.

    ValueError below 1: CogVideoX-Fun's default of 0 leaves out every video without a word.
    """
    if video_repeat < 1:
        raise ValueError(f"video_repeat must be 1 or more: got {video_repeat}. 1 takes each video once.")
    return [
        item for item in items for _ in range(item.repeat * (video_repeat if item.kind == "video" else 1))
    ]


def check_left(name: str, count: int, report: Report) -> None:
    """ValueError where nothing of a data set is left to train on, with all that was left out and why."""
    if not count:
        why = " ".join(report.sentences()) or "It holds no clip and no picture."
        raise ValueError(f"The data set {name} has nothing to train on. {why}")
