"""Where results go, asked of the host."""

from pathlib import Path

import folder_paths


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
