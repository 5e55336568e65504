"""Where models lie, asked of the host: its model folders, and those of this pack beside them."""

import logging
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import folder_paths

SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth"}
# a name for anything: weights only in a folder with a config.json
FOLDER_SUFFIXES = {*SUFFIXES, ".bin"}
# how macOS names what it keeps beside a file on foreign drives
COMPANION = "._"
# below one model folder: links may multiply them without end
MAX_FOLDERS = 10_000
POCKET = Path(__file__).resolve().parents[2] / "pocket" / "models"


@dataclass(frozen=True)
class ModelFolders:
    """The host's model folders and those of this pack, each told by its key: the host's name for it.

    Keys are those of extra_model_paths.yaml; the pack's own folders lie below `models/` under theirs.
    """

    # keys of the pack's own folders
    own: tuple[str, ...]
    # every key that is searched
    keys: tuple[str, ...]
    # folders of the network inside a diffusers pipeline
    networks: tuple[str, ...]
    # what to do for a model of this name, a sentence; empty where nothing is known of it
    source: Callable[[str], str] = lambda name: ""

    def register(self) -> None:
        """Tell the host about our folders, and make them; paths of extra_model_paths.yaml stay first, the pocket's last."""
        for name in self.own:
            folder = os.path.join(folder_paths.models_dir, name)
            folder_paths.add_model_folder_path(name, folder)
            if (POCKET / name).is_dir():
                folder_paths.add_model_folder_path(name, str(POCKET / name))
            folders, suffixes = folder_paths.folder_names_and_paths[name]
            # another pack may have made the key, with a list, or with the one set that the host has for many keys
            if not SUFFIXES <= {*suffixes}:
                folder_paths.folder_names_and_paths[name] = (folders, {*suffixes, *SUFFIXES})
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError:
                logging.warning(f"Kinetograph: the folder models/{name} is not there and cannot be made.")

    def add(self, roots: Iterable[Path]) -> None:
        """Have models folders like ComfyUI's own searched, too, in each of their folders that is there."""
        for root in roots:
            for key in list(folder_paths.folder_names_and_paths):
                if (root / key).is_dir():
                    folder_paths.add_model_folder_path(key, str(root / key))

    def names(
        self, keys: Iterable[str], pipelines: bool = True, unless: Callable[[Path], bool] | None = None
    ) -> list[str]:
        """Names of weight files and diffusers folders below some keys, once each, sorted, the pocket's last.

        `pipelines` includes whole diffusers folders, with a network's folder inside; those for which `unless`
        holds are left out. A folder that cannot be read counts as empty.
        """
        found: dict[str, Path] = {}
        for name, path in (entry for key in keys for entry in self._entries(key)):
            if (pipelines or not os.path.isdir(path)) and not (unless and unless(path)):
                found.setdefault(name, path)
        return sorted(found, key=lambda name: (found[name].is_relative_to(POCKET), name))

    def find(self, name: str, keys: tuple[str, ...]) -> Path:
        """Path of a name from any list, looked for first below some keys.

        ValueError says where it goes when it is not there: below those keys, or ours where they are all.
        """
        searched = list(dict.fromkeys((*keys, *self.keys)))
        for key in searched:
            for entry, path in self._entries(key):
                if entry == name:
                    return path
        # in no list, but there: whoever opens it says what it is
        for path in (path for key in searched for path in self._places(key, name)):
            if os.path.lexists(path):
                return path
        raise ValueError(self._absent(name, self.own if set(keys) == set(self.keys) else keys))

    def part_path(self, path: Path, components: tuple[str, ...]) -> Path:
        """The component of one of these names inside a diffusers pipeline folder, or `path` where it is none."""
        if not any(os.path.isdir(path / name) for name in self.networks):
            return path
        inside = (path / name for name in components if os.path.isdir(path / name))
        return next(inside, path / components[0])

    def _absent(self, name: str, keys: Iterable[str]) -> str:
        """Where a model that is not there goes."""
        parts, said = _inner_parts(name), repr(str(name)[:200])
        if parts[:1] and parts[0] in self.own:
            keys = parts[:1]
        places = " or ".join(f"models/{key}" for key in keys)
        return (
            f"There is no model {said}. Put it into {places} and refresh the list (press R), or choose another one. "
            f"{self.source(str(name))}"
        ).rstrip()

    def _places(self, key: str, name: str) -> Iterator[Path]:
        """Where a file of this name would lie below a key."""
        parts = _inner_parts(name)
        if key in self.own and parts[:1] == (key,):
            parts = parts[1:]
        elif key in self.own:
            return
        if parts:
            yield from (root.joinpath(*parts) for root in _roots(key))

    def _entries(self, key: str) -> Iterator[tuple[str, Path]]:
        """(name, path) below a key; names in a folder of this pack carry its name in front."""
        prefix = f"{key}/" if key in self.own else ""
        for root in _roots(key):
            for path in _walk(root, self._is_pipeline):
                yield prefix + _legible(path.relative_to(root).as_posix()), path

    def _is_pipeline(self, folder: Path, inside: Iterable[str]) -> bool:
        """Whether a folder is a diffusers pipeline: its network has a folder with a config."""
        networks = [name for name in self.networks if name in inside]
        return any(os.path.isfile(folder / name / "config.json") for name in networks)


def _inner_parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a name leads through; none when it leads out of the model folders."""
    path = Path(str(name))
    return () if path.anchor or ".." in path.parts else path.parts


def paths_of(key: str) -> list[Path]:
    """Paths of a model folder, in the order in which they are searched, without that of the pack's pocket models."""
    return [root for root in _roots(key) if not root.resolve().is_relative_to(POCKET)]


def _roots(key: str) -> list[Path]:
    known = key in folder_paths.folder_names_and_paths
    return [Path(root) for root in folder_paths.get_folder_paths(key)] if known else []


def _legible(name: str) -> str:
    """A name that any program can write: bytes that are no text in UTF-8 become %E9 and the like."""
    return "".join(
        f"%{ord(letter) & 0xFF:02X}" if "\ud800" <= letter <= "\udfff" else letter for letter in name
    )


def _walk(root: Path, is_pipeline: Callable[[Path, list[str]], bool]) -> Iterator[Path]:
    """Single files and diffusers folders below `root`; the inside of a diffusers folder is not listed.

    Links are followed, but not back to a folder that leads to them.
    """
    waiting: deque[tuple[Path, frozenset[tuple[int, int]]]] = deque([(root, frozenset())])
    for _ in range(MAX_FOLDERS):
        if not waiting:
            return
        # the nearest first: what links multiply lies deep
        folder, above = waiting.popleft()
        here = _identity(folder)
        if here is None or here in above:
            continue
        files, folders = _contents(folder)
        has_settings = "config.json" in files and any(_is_weights(name, FOLDER_SUFFIXES) for name in files)
        if folder != root and (has_settings or is_pipeline(folder, folders)):
            yield folder
            continue
        yield from (folder / name for name in files if _is_weights(name))
        inside = (name for name in folders if not name.startswith("."))
        waiting += ((folder / name, above | {here}) for name in inside)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _contents(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, sorted, as far as they can be read.

    Pipes, sockets, devices and links to nothing are neither.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is(entry.is_file):
                    files.append(entry.name)
                elif _is(entry.is_dir):
                    folders.append(entry.name)
    except OSError:
        logging.debug(f"Kinetograph: a model folder could not be read to its end: {ascii(str(folder))}")
    return sorted(files), sorted(folders)


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; one that cannot be looked at is of none."""
    try:
        return kind()
    except OSError:
        return False


def _is_weights(name: str, suffixes: Container[str] = SUFFIXES) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes and not name.startswith(COMPANION)
