"""Where models lie and where results go, asked of the host."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import folder_paths

SUFFIXES = {".safetensors"}
COMPANION = "._"  # how macOS names what it keeps beside a file on foreign drives
MAX_FOLDERS = 10_000  # below one model folder: links may multiply them without end
# Folders of this pack below models/, and keys of extra_model_paths: CogVideo is what earlier packs taught users.
COGVIDEO, SVD = OWN_FOLDERS = ("CogVideo", "SVD")
FOLDERS = {
    "diffusion_model": ("diffusion_models", "checkpoints", *OWN_FOLDERS),
    "vae": ("vae", "checkpoints", *OWN_FOLDERS),
    "text_encoder": ("text_encoders", "checkpoints", COGVIDEO),
    "image_encoder": ("clip_vision", "checkpoints", SVD),
    "extension": ("diffusion_models", "checkpoints", SVD),
}
# Folders inside a diffusers pipeline, by the kind of part they hold.
DIFFUSERS_PARTS = {
    "diffusion_model": ("transformer", "unet"),
    "vae": ("vae",),
    "text_encoder": ("text_encoder",),
    "image_encoder": ("image_encoder",),
}
POCKET = Path(__file__).resolve().parents[2] / "pocket" / "models"


def register_folders() -> None:
    """Tell the host about our model folders, and make them; paths a user added in extra_model_paths.yaml stay first."""
    for name in OWN_FOLDERS:
        folder = os.path.join(folder_paths.models_dir, name)
        folder_paths.add_model_folder_path(name, folder)
        folder_paths.folder_names_and_paths[name][1].update(SUFFIXES)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            logging.warning(f"Kinetograph: the folder models/{name} is not there and cannot be made.")


def list_models(
    kinds: Iterable[str], pipelines: bool = True, unless: Callable[[Path], bool] | None = None
) -> list[str]:
    """Names of safetensors files and diffusers folders where `kinds` of parts may lie, sorted, once each.

    `pipelines` includes whole diffusers folders (with a `transformer` or `unet` folder inside); those for
    which `unless` holds are left out. A folder that cannot be read counts as empty.
    """
    return sorted(
        {
            name
            for key in _keys(kinds)
            for name, path in _entries(key)
            if (pipelines or not os.path.isdir(path)) and not (unless and unless(path))
        }
    )


def find_model(name: str, kinds: Iterable[str]) -> Path:
    """Path of a name from any list, looked for first where `kinds` of parts lie.

    ValueError says where it goes when it is not there.
    """
    kinds = tuple(kinds)
    keys = _keys((*kinds, *FOLDERS))
    for key in keys:
        for entry, path in _entries(key):
            if entry == name:
                return path
    # in no list, but there: whoever opens it says what it is
    for path in (path for key in keys for path in _places(key, name)):
        if os.path.lexists(path):
            return path
    raise ValueError(_absent(name, FOLDERS[kinds[0]] if len(kinds) == 1 else OWN_FOLDERS))


def _keys(kinds: Iterable[str]) -> list[str]:
    """The host's names of the folders where `kinds` of parts may lie, once each."""
    return list(dict.fromkeys(key for kind in kinds for key in FOLDERS[kind]))


def _absent(name: str, folders: Iterable[str]) -> str:
    """Where a model that is not there goes."""
    parts, said = _inner_parts(name), repr(str(name)[:200])
    if parts[:1] and parts[0] in OWN_FOLDERS:
        folders = parts[:1]
        if len(parts) > 1 and os.path.exists(POCKET.joinpath(*parts)):
            return (
                f"The pocket model {said} comes with this pack and is not in the model folders yet. Copy the folder "
                f"pocket/models/{parts[0]} of ComfyUI-Kinetograph into ComfyUI's models folder, and refresh the "
                "list (press R)."
            )
    places = " or ".join(f"models/{folder}" for folder in folders)
    return (
        f"There is no model {said}. Put it into {places} and refresh the list (press R), or choose another one. "
        "Tiny models to try the workflows with lie in pocket/models of ComfyUI-Kinetograph: copy its folders into "
        "ComfyUI's models folder."
    )


def _inner_parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a name leads through; none when it leads out of the model folders."""
    path = Path(str(name))
    return () if path.anchor or ".." in path.parts else path.parts


def _places(key: str, name: str) -> Iterator[Path]:
    """Where a file of this name would lie under a model folder key."""
    parts = _inner_parts(name)
    if key in OWN_FOLDERS and parts[:1] == (key,):
        parts = parts[1:]
    elif key in OWN_FOLDERS:
        return
    if parts:
        yield from (root.joinpath(*parts) for root in _roots(key))


def _roots(key: str) -> list[Path]:
    known = key in folder_paths.folder_names_and_paths
    return [Path(root) for root in folder_paths.get_folder_paths(key)] if known else []


def _entries(key: str) -> Iterator[tuple[str, Path]]:
    """(name, path) under a model folder key; names in a folder of this pack carry its name in front."""
    prefix = f"{key}/" if key in OWN_FOLDERS else ""
    for root in _roots(key):
        for path in _walk(root):
            yield prefix + _legible(path.relative_to(root).as_posix()), path


def _legible(name: str) -> str:
    """A name that any program can write: bytes that are no text in UTF-8 become %E9 and the like."""
    return "".join(
        f"%{ord(letter) & 0xFF:02X}" if "\ud800" <= letter <= "\udfff" else letter for letter in name
    )


def _walk(root: Path) -> Iterator[Path]:
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
        weights = [name for name in files if _is_weights(name)]
        if folder != root and (("config.json" in files and weights) or _is_pipeline(folder, folders)):
            yield folder
            continue
        yield from (folder / name for name in weights)
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


def _is_weights(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(COMPANION)


def _is_pipeline(folder: Path, folders: Iterable[str]) -> bool:
    """Whether a folder is a diffusers pipeline: its network has a folder with a config."""
    networks = [name for name in DIFFUSERS_PARTS["diffusion_model"] if name in folders]
    return any(os.path.isfile(folder / name / "config.json") for name in networks)


def part_path(path: Path, kind: str) -> Path:
    """The part of `kind` inside a diffusers pipeline folder, or `path` itself when it is that part."""
    if not any(os.path.isdir(path / name) for name in DIFFUSERS_PARTS["diffusion_model"]):
        return path
    names = DIFFUSERS_PARTS[kind]
    return next((path / name for name in names if os.path.isdir(path / name)), path / names[0])


def save_path(prefix: str, width: int, height: int, temporary: bool) -> tuple[Path, str, int, str]:
    """(folder, file name, counter, subfolder) for the next result, as the host counts them."""
    root = str(result_root(temporary))
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    return Path(folder), name, counter, subfolder


def result_root(temporary: bool) -> Path:
    """The host's folder for previews, or for what is kept."""
    return Path(folder_paths.get_temp_directory() if temporary else folder_paths.get_output_directory())


def output_directory() -> Path:
    """The host's output folder."""
    return result_root(temporary=False)


def result_directories() -> list[Path]:
    """The host's folders for results: output and temporary."""
    return [result_root(temporary) for temporary in (False, True)]
