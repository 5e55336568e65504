"""What a weight file is, whether it is complete, and where it belongs: from its header, in milliseconds.

Run by `python dev.py doctor FILE [--json] [--hash]` as this module's `main`, and by the node ModelDoctor.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .families import ADD_ONS, FAMILIES
from .published import FileRecord, compare
from .weights.detect import detect_all
from .weights.errors import CheckpointError, shown
from .weights.files import Header, read_header
from .weights.finding import Finding
from .weights.shards import component_folders, weight_files

SHOWN = 5  # keys named per fault
SEVERAL_PARTS_FOLDER = "checkpoints"


@dataclass(frozen=True)
class Report:
    """The findings on one file, or on the component folders of one diffusers pipeline."""

    name: str
    findings: tuple[Finding, ...]
    # of every part that lies in one file
    files: tuple[FileRecord, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every part is known, whole and loadable."""
        return all(finding.complete for finding in self.findings)

    @property
    def folder(self) -> str:
        """The model folder that all of it belongs into: parts that came together stay together."""
        folders = {finding.part.folder for finding in self.findings if finding.part}
        return SEVERAL_PARTS_FOLDER if len(folders) > 1 else "".join(folders) or "unknown"

    def to_json(self) -> dict[str, Any]:
        """The report for programs. A key of the wrong shape counts as missing and as unexpected."""
        known = [finding for finding in self.findings if finding.part] or list(self.findings[:1])
        parts = [finding.part for finding in known if finding.part]
        return {
            "family": " + ".join(dict.fromkeys(finding.family for finding in known)),
            "variant": " + ".join(dict.fromkeys(finding.variant for finding in known)),
            "dialect": " + ".join(dict.fromkeys(finding.dialect for finding in known)),
            "keys": sum(finding.keys for finding in self.findings),
            "matched": sum(finding.matched for finding in self.findings),
            "missing": sum(len(finding.missing) + len(finding.misshapen) for finding in self.findings),
            "unexpected": sum(len(finding.unexpected) + len(finding.misshapen) for finding in self.findings),
            "dtype": self.findings[0].dtype,
            "parameters": sum(finding.parameters for finding in self.findings),
            "folder": self.folder,
            "node": " + ".join(dict.fromkeys(part.node.id for part in parts)) or "unknown",
            "limits": " + ".join(dict.fromkeys(filter(None, map(limits_of, known)))),
            "published": [each.to_json() for file in self.files for each in file.comparisons],
            "sha256": {file.name: file.sha256 for file in self.files if file.sha256},
        }

    def to_text(self) -> str:
        """The report for people."""
        lines = [line for finding in self.findings for line in _lines(finding, self.folder)]
        for file in self.files:
            said = file.lines()
            lines += [f"  file        {file.name}"] * bool(said and len(self.files) > 1) + said
        return "\n".join([self.name, *lines])


def _lines(finding: Finding, folder: str) -> list[str]:
    """One part's share of the report."""
    lines = [
        f"  family      {finding.label}" + (f" ({finding.kind})" if finding.kind else ""),
        f"  variant     {finding.variant}",
        f"  dialect     {finding.dialect}" + (f", under {finding.prefix}" if finding.prefix else ""),
        f"  keys        {finding.keys}: {finding.matched} matched, {len(finding.missing)} missing, "
        f"{len(finding.unexpected)} unexpected, {len(finding.misshapen)} of another shape, "
        f"{finding.num_dropped} not needed",
        f"  dtype       {finding.dtype}",
        f"  parameters  {finding.parameters:,}",
    ]
    if finding.part is not None:
        lines += [f"  folder      {folder}", f"  node        {finding.part.node.title}"]
    if limits := limits_of(finding):
        lines += [f"  limits      {limits}"]
    faults = {
        "missing": finding.missing,
        "unexpected": finding.unexpected,
        "another shape": finding.misshapen,
    }
    for fault, keys in faults.items():
        lines += [f"  {fault}: {shown(key)}" for key in keys[:SHOWN]]
        lines += [f"  {fault}: ... {len(keys) - SHOWN} more"] * (len(keys) > SHOWN)
    return [*lines, "  " + (_praise(finding) if finding.complete else finding.complaint())]


def limits_of(finding: Finding) -> str:
    """What the network cannot go beyond, or the one that weights go into; empty where there is no such limit."""
    if finding.config is None:
        return ""
    for family in FAMILIES:
        if (family.id, finding.kind) == (finding.family, "diffusion_model"):
            return family.network.limits(finding.config).text
    add_ons = (add_on for add_on in ADD_ONS if add_on.part is finding.part)
    return next((add_on.limits(finding.config).text for add_on in add_ons), "")


def _praise(finding: Finding) -> str:
    return f"Complete: {finding.label} {finding.variant}, every key is used or known not to be needed."


def examine(path: str | Path, hashed: bool = False) -> Report:
    """Report on a file, a sharded set, a component folder or a diffusers pipeline folder.

    Reads headers only, unless `hashed`: then every part that lies in one file is read whole, for its SHA-256.
    CheckpointError when the file cannot be opened; a file of no known kind is a report with the family "unknown".
    """
    path = Path(path)
    components = component_folders(path)
    if not components or _holds_weights(path):
        components = {"": path}
    findings: list[Finding] = []
    files: list[FileRecord] = []
    for component, place in components.items():
        header = read_header(place)
        found = detect_all(header, FAMILIES)
        findings += found
        files += _records(component, header, found, hashed)
    return Report(shown(path.name), tuple(findings), tuple(files))


def _records(component: str, header: Header, found: tuple[Finding, ...], hashed: bool) -> list[FileRecord]:
    """What a part's file is beside the published ones. Of those in several files no size is known."""
    if len(header.files) != 1:
        return []
    (file,) = header.files
    name = f"{component}/{file.name}" if component else file.name
    return [compare(file, shown(name), found, FAMILIES, hashed)]


def _holds_weights(path: Path) -> bool:
    try:
        return bool(weight_files(path))
    except CheckpointError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report. 0: known and complete; 1: unknown or incomplete; 2: cannot be opened."""
    parser = argparse.ArgumentParser(prog="doctor", description=__doc__)
    parser.add_argument("file", type=Path, help="a .safetensors file, an index, or a diffusers folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--hash", action="store_true", help="read all of it and compare its SHA-256, too")
    wish = parser.parse_args(arguments)
    try:
        report = examine(wish.file, wish.hash)
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write((json.dumps(report.to_json(), indent=2) if wish.json else report.to_text()) + "\n")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
