"""Which files of a repository a release is, and that they are the published ones."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase

from ..families.family import Release
from .errors import DownloadError
from .hub import HubFile, Repository, is_plain

# pickles beside them are not needed
WANTED = (".safetensors", ".json")
# the same weights once more, in other words or fewer bits
VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|ema)[.-]")


def chosen_files(repository: Repository, release: Release) -> tuple[HubFile, ...]:
    """The files of a release, each with what is on record of it.

    DownloadError where the repository does not hold them, or holds others under their names than were published.
    """
    names = _names_in_folder(repository, release) if release.is_folder else _one_name(repository, release)
    files = tuple(file for file in repository.files if file.path in names)
    for file in files:
        if not is_plain(file.path):
            raise DownloadError(
                f"The hub names a file of {repository.name} {file.path!r}, which is no path to use."
            )
        if not file.identity:
            raise DownloadError(
                f"The hub tells no hash of {file.path}, so nothing could be checked: it is not fetched."
            )
    return files if release.is_folder else (_as_published(release, files[0]),)


def _one_name(repository: Repository, release: Release) -> set[str]:
    if "*" not in release.file:
        if any(file.path == release.file for file in repository.files):
            return {release.file}
        raise DownloadError(
            f"{repository.name} holds no file {release.file} any more: {release.address} says what there is."
        )
    fitting = [file.path for file in repository.files if fnmatchcase(file.path, release.file)]
    if len(fitting) != 1:
        said = ", ".join(fitting[:8]) + " and more" * (len(fitting) > 8) or "none"
        raise DownloadError(
            f"{repository.name} should hold one file {release.file}, and holds {said}: choose by hand at {release.address}."
        )
    return {*fitting}


def _names_in_folder(repository: Repository, release: Release) -> set[str]:
    """Weights and settings below the folder; variants only where nothing else is there."""
    start = f"{release.file}/"
    inside = [file.path for file in repository.files if file.path.startswith(start)]
    wanted = {path for path in inside if path.endswith(WANTED)}
    plain = {path for path in wanted if not VARIANT.search(path)}
    found = plain if any(path.endswith(WANTED[0]) for path in plain) else wanted
    if not any(path.endswith(WANTED[0]) for path in found):
        raise DownloadError(
            f"{repository.name} holds no .safetensors file in {release.file} any more: {release.address} says what there "
            "is."
        )
    return found


def _as_published(release: Release, file: HubFile) -> HubFile:
    """The file with the SHA-256 on record; DownloadError where the hub lists another file under its name."""
    known = {"bytes": (release.bytes, file.bytes), "SHA-256": (release.sha256, file.sha256)}
    for what, (published, listed) in known.items():
        if published is not None and listed is not None and published != listed:
            raise DownloadError(
                f"The hub's file {file.path} is another one than the published: {what} {listed}, published {published}. "
                f"Nothing is fetched. {release.address} may say what changed."
            )
    return replace(file, sha256=release.sha256 or file.sha256)
