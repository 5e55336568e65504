"""What a weight file is, whether it is complete, and where it belongs: from its header, in milliseconds.

Run by `python dev.py doctor FILE [--json] [--hash]` as this module's `main`, and by the node ModelDoctor.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .families import ADD_ONS, FAMILIES
from .families.cogvideox.exvideo import is_exvideo
from .families.family import Family
from .lora_origin import Origin, find_origin, kinds_of
from .published import FileRecord, compare
from .weights.detect import detect_all
from .weights.errors import CheckpointError, shown
from .weights.files import Header, open_weights, read_header
from .weights.finding import Finding
from .weights.lora import rank_words, read_alphas
from .weights.lora_names import ALPHA_END, is_lora
from .weights.part import NodeName
from .weights.shards import component_folders, weight_files

SHOWN = 5  # keys named per fault
SEVERAL_PARTS_FOLDER = "checkpoints"
LORA_NODE = NodeName("KinetographLoRAStack", "LoRA Stack")
# for a LoRA that changes what ExVideo's changes
EXVIDEO_NODE = "ExVideo Patch"
ALPHAS = 16  # that are read
GROUPS = 12  # kinds of modules named of a LoRA


@dataclass(frozen=True)
class LoRAReport:
    """The findings on one LoRA file."""

    header: Header
    origin: Origin
    # as its keys or its metadata tell them; empty where neither does
    alphas: tuple[float, ...]
    files: tuple[FileRecord, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every key belongs to a network or a text encoder known here."""
        return self.origin.lora.matched > 0 and not self.origin.unmatched

    def to_json(self) -> dict[str, Any]:
        """The report for programs, in the words of other files; what only LoRA has stands under `lora`."""
        origin, header = self.origin, self.header
        ranks = sorted({*origin.lora.ranks.values()} - {0})
        return {
            "family": origin.family or "unknown",
            "variant": f"LoRA for {origin.what}",
            "dialect": origin.lora.dialect,
            "keys": len(header.shapes),
            "matched": len(header.shapes) - len(origin.unmatched),
            "missing": 0,
            "unexpected": len(origin.unmatched),
            "dtype": header.dtype,
            "parameters": header.parameters,
            "folder": origin.folder,
            "node": LORA_NODE.id,
            "limits": "",
            "published": [each.to_json() for file in self.files for each in file.comparisons],
            "sha256": {file.name: file.sha256 for file in self.files if file.sha256},
            "lora": {
                "ranks": ranks,
                "alphas": list(self.alphas),
                "modules": origin.lora.matched,
                "text_modules": origin.num_text_modules,
                "hint": origin.hint,
            },
        }

    def to_text(self) -> str:
        """The report for people."""
        lines = [f"  {name:<12}{said}" for name, said in self._facts()]
        lines += [line for file in self.files for line in file.lines()]
        unmatched = self.origin.unmatched
        lines += [f"  unexpected: {shown(key)}" for key in unmatched[:SHOWN]]
        lines += [f"  unexpected: ... {len(unmatched) - SHOWN} more"] * (len(unmatched) > SHOWN)
        verdict = f"Complete: a LoRA for {self.origin.what}." if self.complete else self._complaint()
        return "\n".join([self.header.name, *lines, f"  {verdict}"])

    def _facts(self) -> list[tuple[str, str]]:
        origin, told = self.origin, self.to_json()
        named = ", ".join(kinds_of(origin.lora.modules)[:GROUPS])
        ends = [f"{alpha:g}" for alpha in dict.fromkeys((*self.alphas[:1], *self.alphas[-1:]))]
        return [
            ("family", f"{origin.label} (LoRA)"),
            ("variant", f"for {origin.what}"),
            ("dialect", told["dialect"]),
            ("keys", f"{told['keys']}: {told['matched']} matched, {told['unexpected']} unexpected"),
            ("rank", rank_words(origin.lora.ranks.values()).removeprefix("rank ").removeprefix("ranks ")),
            ("alpha", " to ".join(ends) or "none (scale 1)"),
            ("modules", f"{origin.lora.matched}" + (f": {named}" if named else "")),
            ("T5 parts", f"{origin.num_text_modules} modules"),
            ("dtype", told["dtype"]),
            ("parameters", f"{told['parameters']:,}"),
            ("folder", origin.folder),
            (
                "node",
                f"{LORA_NODE.title} or {EXVIDEO_NODE}"
                if is_exvideo(origin.lora.modules)
                else LORA_NODE.title,
            ),
            *[("hint", origin.hint)] * bool(origin.hint),
        ]

    def _complaint(self) -> str:
        if self.origin.lora.matched:
            return f"A LoRA for {self.origin.what}, of which a part is not known here."
        what = "a model" if self.origin.label == "unknown" else self.origin.what
        return f"A LoRA for {what} that is not known here."


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


def examine(path: str | Path, hashed: bool = False) -> Report | LoRAReport:
    """Report on a file, a LoRA file, a sharded set, a component folder or a diffusers pipeline folder.

    Reads headers only, unless `hashed`: then every part that lies in one file is read whole, for its SHA-256.
    CheckpointError when the file cannot be opened; a file of no known kind is a report with the family "unknown".
    """
    path = Path(path)
    components = component_folders(path)
    if not components or _holds_weights(path):
        components = {"": path}
        if is_lora((header := read_header(path)).shapes):
            return _on_lora(path, header, hashed)
    findings: list[Finding] = []
    files: list[FileRecord] = []
    headers = {component: read_header(place) for component, place in components.items()}
    families = FAMILIES if len(headers) == 1 else _network_first(headers.values())
    for component, header in headers.items():
        found = detect_all(header, families)
        findings += found
        files += _records(component, header, found, hashed)
    return Report(shown(path.name), tuple(findings), tuple(files))


def _network_first(headers: Iterable[Header]) -> tuple[Family, ...]:
    """All families, first that of a network among these parts: families share text encoders."""
    found = (finding for header in headers for finding in detect_all(header, FAMILIES))
    own = {finding.family for finding in found if finding.kind == "diffusion_model"}
    return tuple(sorted(FAMILIES, key=lambda family: family.id not in own))


def _on_lora(path: Path, header: Header, hashed: bool) -> LoRAReport:
    """The report on a LoRA file. Of its weights some alphas alone are read: each may lie in another corner of a drive."""
    origin = find_origin(header.shapes)
    keys = [key for key in header.shapes if ALPHA_END.search(key)]
    keys = keys[:: -(-len(keys) // ALPHAS) or 1]
    tensors = open_weights(path, keys) if keys else {}
    alphas = {float(tensors[key]) for key in keys if tensors[key].numel() == 1}
    alphas |= set(read_alphas(header.name, header.metadata, origin.lora.ranks).values())
    return LoRAReport(header, origin, tuple(sorted(alphas)), tuple(_records("", header, (), hashed)))


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
    parser.add_argument(
        "file",
        type=Path,
        help="a .safetensors or torch file (.ckpt, .pt, .pth, .bin), an index, or a diffusers folder",
    )
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
