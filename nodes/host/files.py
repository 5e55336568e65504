"""Where results go and samples lie, asked of the host."""

import logging
from pathlib import Path

import folder_paths

SAMPLES = Path(__file__).resolve().parents[2] / "workflows" / "input"


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


def input_folders() -> list[str]:
    """Folders below the host's input folder, as its own dataset nodes name them; none that is hidden."""
    names = folder_paths.get_input_subfolders()
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def input_directory() -> Path:
    """The host's input folder."""
    return Path(folder_paths.get_input_directory())


def input_folder(name: str) -> Path:
    """A folder below the host's input folder; ValueError for one that is not there, or lies outside."""
    root = Path(folder_paths.get_input_directory()).resolve()
    # a name with a drive or a root of its own replaces what stands before it
    folder = (root / str(name)).resolve()
    if folder == root or not folder.is_relative_to(root) or not folder.is_dir():
        raise ValueError(
            f"There is no folder {str(name)[:80]!r} below ComfyUI's input folder: put the data set there, refresh the list "
            "(press R) and choose it."
        )
    return folder


def training_directory() -> Path:
    """Where trainings of nodes go: each in a folder of its own, below the host's output folder."""
    return output_directory() / "training"


def result_directories() -> list[Path]:
    """The host's folders for results: output and temporary."""
    return [result_root(temporary) for temporary in (False, True)]


def supply_samples() -> None:
    """Put the pictures, clips and data sets that the templates start from into the host's input folder.

    What has such a name there stays as it is. A folder that cannot be written to is no fault of ours: a word in the log.
    """
    folder = Path(folder_paths.get_input_directory())
    try:
        for sample in sorted(path for path in SAMPLES.rglob("*") if path.is_file()):
            place = folder / sample.relative_to(SAMPLES)
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy_if_absent(sample, place)
    except OSError as error:
        logging.warning(
            f"Kinetograph: the sample pictures of the templates could not be laid into {folder}: {error}"
        )


def _copy_if_absent(sample: Path, place: Path) -> None:
    """Copy a small file; OSError when it cannot be written, and then no part of it is left."""
    content = sample.read_bytes()
    try:
        file = open(place, "xb")
    except FileExistsError:
        return
    try:
        with file:
            file.write(content)
    except OSError:
        place.unlink(missing_ok=True)
        raise
