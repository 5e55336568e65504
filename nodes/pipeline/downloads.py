"""Published releases into the host's model folders, through its progress bar and its Cancel."""

import logging
import time
from pathlib import Path

from ...modules.download.errors import DownloadError
from ...modules.download.fetch import download
from ...modules.download.hub import Hub
from ...modules.download.plan import places_of, with_all_needs
from ...modules.families import DOWNLOADS
from ...modules.weights.files import FileIdentity, file_identity
from ..host import progress
from ..host.folders import paths_of

# between two moves of the bar, which are messages to the page
BAR_SECONDS = 0.2


class Bar:
    """The progress bar of the running node over bytes; lets the user's Cancel through at every call."""

    def __init__(self) -> None:
        self._bar = progress.steps(1)
        self._moved = 0.0

    def move(self, done: int, total: int) -> None:
        """Show `done` of `total` bytes."""
        progress.check_interrupted()
        if total != self._bar.total:
            self._bar = progress.steps(total)
        now = time.monotonic()
        if done > self._bar.done and (done >= total or now - self._moved > BAR_SECONDS):
            self._bar.advance(done - self._bar.done)
            self._moved = now


def fetch_release(name: str, with_needs: bool) -> str:
    """Bring a release by its name; the report on every file.

    The plan is on the node before the first byte, and the report at the end.
    """
    hub = Hub.of_environment()
    report = download([name], DOWNLOADS, paths_of, hub, _tell, Bar().move, with_needs)
    _tell(report)
    return report


def _tell(text: str) -> None:
    progress.tell(text)
    logging.info("Kinetograph: %s", text)


def problem_of(name: str) -> str | None:
    """Why a name is none of a release to download; or None."""
    try:
        with_all_needs([name], False, DOWNLOADS)
    except DownloadError as error:
        return str(error)
    return None


def identities(name: str, with_needs: bool) -> list[FileIdentity] | list[int]:
    """What the files of a release are now; a new number each time while something is not there.

    A name that comes over a link is not known yet: that is a new number, too.
    """
    found: list[FileIdentity] = []
    known = [name] if name in DOWNLOADS else []
    for release in with_all_needs(known, with_needs, DOWNLOADS):
        files = [file for place in places_of(release, paths_of(release.folder)) for file in _inside(place)]
        if not files:
            return [time.monotonic_ns()]
        found += map(file_identity, files)
    return found or [time.monotonic_ns()]


def _inside(place: Path) -> list[Path]:
    """A file, or the files of a folder with weights in it."""
    if not place.is_dir():
        return [place] if place.is_file() else []
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return files if any(path.suffix == ".safetensors" for path in files) else []
