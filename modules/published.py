"""Whether a file is a published one, as far as its kind, its size and, where somebody waits for it, its SHA-256 tell."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .families.family import Family, Release
from .weights.errors import unreadable
from .weights.finding import Finding

COMMAND = "python dev.py doctor FILE --hash"
READ_BYTES = 2**24


@dataclass(frozen=True)
class Comparison:
    """A published file of the same kind beside the one at hand. None: no record tells, or nobody looked."""

    release: Release
    same_size: bool | None
    same_hash: bool | None

    @property
    def title(self) -> str:
        """File and repository."""
        return f"{self.release.file} of {self.release.repository}"

    def to_json(self) -> dict[str, str | bool | None]:
        """The comparison for programs."""
        return {
            "name": self.release.name,
            "repository": self.release.repository,
            "file": self.release.file,
            "same_size": self.same_size,
            "same_sha256": self.same_hash,
        }


@dataclass(frozen=True)
class FileRecord:
    """One file, and the published ones that its size or its SHA-256 speaks for."""

    # for people
    name: str
    bytes: int
    # None: not computed
    sha256: str | None
    comparisons: tuple[Comparison, ...]

    def lines(self) -> list[str]:
        """The report for people; nothing where nothing was found and nobody computed the hash."""
        if self.sha256 is None:
            return self._by_size()
        same = [each for each in self.comparisons if each.same_hash]
        words = [f"this is the published file {each.title} (same SHA-256)" for each in same]
        if not same:
            words = [self._by_hash(each) for each in self.comparisons]
        words = words or ["no published file of this kind is on record with this size or this SHA-256"]
        return [f"  sha256      {self.sha256}", *(f"  published   {line}" for line in words)]

    def _by_size(self) -> list[str]:
        """What the size alone says."""
        titles = [each.title for each in self.comparisons]
        if not titles:
            return []
        told = f"same kind, same size: {self.bytes:,} bytes; the contents were not compared: {COMMAND} does"
        if len(titles) == 1:
            return [f"  published   this may be the published file {titles[0]} ({told})"]
        head = f"  published   this may be one of {len(titles)} published files ({told}):"
        return [head, *(f"    {title}" for title in titles)]

    def _by_hash(self, each: Comparison) -> str:
        if each.same_hash is None:
            return f"this may be the published file {each.title} (same kind, same size; no record tells its SHA-256)"
        return (
            f"this is NOT the published file {each.title} (same size, another SHA-256: {each.release.sha256})"
        )


def compare(
    file: Path, name: str, findings: Iterable[Finding], families: Iterable[Family], hashed: bool = False
) -> FileRecord:
    """One file, called `name`, beside the published files of the kinds found in it.

    Looks at the size alone, unless `hashed`: then the whole file is read. CheckpointError when it cannot be.
    """
    try:
        size = file.stat().st_size
        sha256 = sha256_of(file) if hashed else None
    except OSError as problem:
        raise unreadable(file, problem) from None
    kinds = {(finding.family, finding.kind) for finding in findings if finding.part}
    releases = (
        release for family in families for release in family.releases if (family.id, release.kind) in kinds
    )
    compared = (_beside(release, size, sha256) for release in releases)
    return FileRecord(
        name, size, sha256, tuple(each for each in compared if each.same_size or each.same_hash)
    )


def _beside(release: Release, size: int, sha256: str | None) -> Comparison:
    hashes = (release.sha256, sha256)
    return Comparison(
        release,
        None if release.bytes is None else release.bytes == size,
        None if None in hashes else release.sha256 == sha256,
    )


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; reads all of it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
