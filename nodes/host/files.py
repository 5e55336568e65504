"""Where models lie and where results go, asked of the host."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import folder_paths

SUFFIXES = {".safetensors"}
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


def register_folders() -> None:
    """Tell the host about our model folders; paths a user added in extra_model_paths.yaml stay first."""
    for name in OWN_FOLDERS:
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        folder_paths.folder_names_and_paths[name][1].update(SUFFIXES)


def list_models(kinds: Iterable[str], pipelines: bool = True) -> list[str]:
    """Names of safetensors files and diffusers folders where `kinds` of parts may lie, sorted, once each.

    `pipelines` includes whole diffusers folders (with a `transformer` or `unet` folder inside).
    """
    keys = dict.fromkeys(key for kind in kinds for key in FOLDERS[kind])
    return sorted({name for key in keys for name, _ in _entries(key, pipelines)})


def find_model(name: str, kinds: Iterable[str]) -> Path:
    """Path of a name from `list_models`; ValueError when it is gone."""
    for key in dict.fromkeys(key for kind in kinds for key in FOLDERS[kind]):
        for entry, path in _entries(key, pipelines=True):
            if entry == name:
                return path
    raise ValueError(f"Model '{name}' is no longer in the model folders: refresh the list and choose again.")


def _entries(key: str, pipelines: bool) -> Iterator[tuple[str, Path]]:
    """(name, path) under a model folder key; names in a folder of this pack carry its name in front."""
    if key not in folder_paths.folder_names_and_paths:
        return
    prefix = f"{key}/" if key in OWN_FOLDERS else ""
    for root in map(Path, folder_paths.get_folder_paths(key)):
        for path in _walk(root):
            if path.is_dir() and not pipelines:
                continue
            yield prefix + path.relative_to(root).as_posix(), path


def _walk(root: Path) -> Iterator[Path]:
    """Single files and diffusers folders below `root`; the inside of a diffusers folder is not listed."""
    for folder, names, files in os.walk(root, followlinks=True):
        here = Path(folder)
        inside = [name for name in names if is_diffusers_folder(here / name)]
        yield from (here / name for name in inside)
        names[:] = [name for name in names if name not in inside and not name.startswith(".")]
        yield from (here / name for name in files if Path(name).suffix in SUFFIXES)


def is_diffusers_folder(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline, or one component of it with its config."""
    return _is_pipeline(path) or ((path / "config.json").is_file() and any(path.glob("*.safetensors")))


def _is_pipeline(path: Path) -> bool:
    return any((path / name / "config.json").is_file() for name in DIFFUSERS_PARTS["diffusion_model"])


def part_path(path: Path, kind: str) -> Path:
    """The part of `kind` inside a diffusers pipeline folder, or `path` itself when it is that part."""
    if not any((path / name).is_dir() for name in DIFFUSERS_PARTS["diffusion_model"]):
        return path
    names = DIFFUSERS_PARTS[kind]
    return next((path / name for name in names if (path / name).is_dir()), path / names[0])


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
