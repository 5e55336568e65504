"""What a download would fetch, and where to: told, and refused where it cannot be, before the first byte."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from ..families.family import Release
from .choice import chosen_files
from .errors import ConnectionBreak, DownloadError, amount
from .hub import Hub, HubFile, Repository
from .patience import Tick, patiently, rest

# paths of a model folder by its key, in the order in which they are searched
RootsOf = Callable[[str], Sequence[Path]]


@dataclass(frozen=True)
class Item:
    """One file that should be there."""

    release: Release
    repository: Repository
    file: HubFile
    # with its final name
    target: Path
    is_here: bool

    @property
    def is_pinned(self) -> bool:
        """Whether its SHA-256 is on record, and not only the hub's word of the moment."""
        return self.release.sha256 is not None

    @property
    def part(self) -> Path:
        """Where its bytes wait until all are there: a hidden file beside the target, named after what it will be."""
        return self.target.with_name(f".{self.target.name}.{self.file.identity[:12]}.part")

    @property
    def missing_bytes(self) -> int:
        """Bytes still to fetch."""
        if self.is_here:
            return 0
        return max(0, self.file.bytes - size_of(self.part))


@dataclass(frozen=True)
class Elsewhere:
    """A release that lies at no hub: people fetch it themselves."""

    release: Release
    target: Path
    is_here: bool


@dataclass(frozen=True)
class Plan:
    """All that was asked for, in order."""

    hub: Hub
    items: tuple[Item, ...]
    elsewhere: tuple[Elsewhere, ...]

    @property
    def missing(self) -> list[Item]:
        """What will be fetched."""
        return [item for item in self.items if not item.is_here]

    @property
    def bytes(self) -> int:
        """Bytes still to fetch."""
        return sum(item.missing_bytes for item in self.items)

    def check_room(self) -> None:
        """DownloadError where a drive has not the room for what will lie on it."""
        needed: dict[int, list[Item]] = {}
        for item in self.missing:
            needed.setdefault(os.stat(standing(item.target)).st_dev, []).append(item)
        for items in needed.values():
            wanted, free = sum(item.missing_bytes for item in items), free_bytes(items[0].target)
            if wanted > free:
                raise DownloadError(
                    f"Not enough room: {amount(wanted)} ({wanted:,} bytes) are to be fetched into "
                    f"{items[0].target.parent}, and {amount(free)} ({free:,} bytes) are free there. Free some space, or "
                    "name a folder on another drive in extra_model_paths.yaml. Nothing was fetched."
                )


def standing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(folder for folder in path.parents if folder.is_dir())


def free_bytes(target: Path) -> int:
    """What the drive of a file to come has room for."""
    return shutil.disk_usage(standing(target)).free


def size_of(path: Path) -> int:
    """Bytes of a file; 0 without one."""
    return path.stat().st_size if path.is_file() else 0


def with_all_needs(
    names: Iterable[str], with_needs: bool, releases: Mapping[str, Release]
) -> tuple[Release, ...]:
    """The releases of some names and what they need beside them, each once; DownloadError for a name that is none."""
    found: dict[str, Release] = {}
    waiting = [*names]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        if name not in releases:
            near = get_close_matches(str(name), releases, 3, 0.3) or [*releases][:3]
            raise DownloadError(
                f"There is no release {str(name)[:100]!r} to download. Choose one of the list of Model Download (python "
                f"dev.py fetch --list), such as {'; '.join(near)}."
            )
        found[name] = releases[name]
        waiting += releases[name].needs if with_needs else ()
    return tuple(found.values())


def make_plan(releases: Iterable[Release], roots_of: RootsOf, hub: Hub, tick: Tick) -> Plan:
    """Look into the folders, and ask the hub what it holds; ValueErrors say what stands in the way."""
    repositories: dict[str, Repository] = {}
    items: list[Item] = []
    elsewhere: list[Elsewhere] = []
    for release in releases:
        roots = list(roots_of(release.folder))
        if not release.is_at_hub:
            elsewhere.append(_look_for(release, roots))
            continue
        name = release.repository
        if name not in repositories:
            repositories[name] = _ask(hub, name, tick)
        for file in chosen_files(repositories[name], release):
            items.append(_place(release, repositories[name], file, roots))
    return Plan(hub, tuple(items), tuple(elsewhere))


def _ask(hub: Hub, name: str, tick: Tick) -> Repository:
    """What a repository holds, asked for again when the connection breaks."""
    for pause in (*hub.pauses[:2], None):
        try:
            (repository,) = patiently(hub.repository(name), tick)
            return repository
        except ConnectionBreak as problem:
            if pause is None:
                raise DownloadError(
                    f"No connection to {hub.address} ({problem}). Check the network, a proxy (HTTPS_PROXY) or a mirror "
                    "(HF_ENDPOINT), and try again. Nothing was fetched."
                ) from problem
            rest(pause, tick)
    raise AssertionError


def places_of(release: Release, roots: Sequence[Path]) -> list[Path]:
    """Where a release may lie: its file, its folder, or the folder that its archive becomes."""
    place = PurePosixPath(release.place)
    inside = place.with_suffix("") if place.suffix == ".tar" else place
    return [root / inside for root in roots]


def _look_for(release: Release, roots: Sequence[Path]) -> Elsewhere:
    found = any(path.is_dir() or size_of(path) for path in places_of(release, roots))
    return Elsewhere(release, _root_to_write(release, roots) / release.place, found)


def _place(release: Release, repository: Repository, file: HubFile, roots: Sequence[Path]) -> Item:
    """Where a file lies or will lie; DownloadError where another one lies under its name."""
    inner = f"{PurePosixPath(repository.name).name}/{file.path}" if release.is_folder else release.place
    there = [root / inner for root in roots if os.path.lexists(root / inner)]
    for path in there:
        if size_of(path) == file.bytes:
            return Item(release, repository, file, path, True)
    if there:
        raise DownloadError(taken(there[0], file, f"{size_of(there[0]):,} bytes"))
    return Item(release, repository, file, _root_to_write(release, roots) / inner, False)


def taken(path: Path, file: HubFile, found: str) -> str:
    """What to do where another file has the name."""
    return (
        f"{path} is there already and is another file: {found}; the hub's has {file.bytes:,} bytes and the hash "
        f"{file.identity}. A file is never replaced: move it away or rename it, then try again."
    )


def _root_to_write(release: Release, roots: Sequence[Path]) -> Path:
    """The first path of a model folder that may be written to."""
    for root in roots:
        if os.access(root if root.is_dir() else standing(root), os.W_OK):
            return root
    raise DownloadError(
        f"No path of the model folder {release.folder} may be written to: {', '.join(map(str, roots)) or 'it has none'}."
    )
