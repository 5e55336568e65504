"""Which family, variant and dialect a checkpoint is of, from its keys and shapes alone."""

import re
from collections.abc import Iterable
from dataclasses import replace

from .errors import CheckpointError
from .files import Header
from .finding import Finding
from .fused import split_header, split_keys
from .keymap import KeyMap
from .part import Kind, Part, PartsOfFamily, Stranger
from .reading import examine

# What programs put in front of a part's own keys, alone or one after another: pipelines, wrappers, compilers.
WRAPPERS = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "module",
    "model",
    "net",
    "pipe",
    "pipeline",
    "diffusion_model",
    "transformer",
    "unet",
    "controlnet",
    "first_stage_model",
    "vae",
    "text_encoder",
    "text_encoders",
    "t5xxl",
    "image_encoder",
    "cond_stage_model",
    r"conditioner\.embedders\.0\.open_clip",
    r"conditioner\.embedders\.3\.encoder",
)
PREFIX = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)*")
# What compilers and checkpointing put in front of single blocks.
INNER = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def detect(header: Header, families: Iterable[PartsOfFamily], kind: Kind | None = None) -> Finding:
    """The part of a checkpoint that is of `kind`, or its largest part when no kind is asked for.

    Never raises for a strange file: see `Finding.complete` and `Finding.check`.
    """
    return _of_kind(detect_all(header, families), kind)


def _of_kind(findings: tuple[Finding, ...], kind: Kind | None) -> Finding:
    """The largest finding of a kind; else the largest one, with what is there in place of it."""
    wanted = [finding for finding in findings if kind is None or finding.kind == kind]
    if wanted:
        return wanted[0]
    found = ", ".join(f"{finding.label} {finding.kind}" for finding in findings if finding.part)
    problem = f"it holds {found}, and a {kind} is wanted here." if found else findings[0].problem
    return replace(findings[0], problem=problem)


def choose(
    header: Header,
    families: Iterable[PartsOfFamily],
    family: PartsOfFamily,
    kind: Kind,
    findings: tuple[Finding, ...] | None = None,
) -> Finding:
    """The complete part of `kind` of one family; CheckpointError says what the file is instead, and who takes it.

    `findings` are the family's own, where somebody has them.
    """
    finding = _of_kind(findings or detect_all(header, (family,)), kind)
    if finding.kind == kind:
        return finding.check()
    all_parts = detect_all(header, families)
    others = [other for other in all_parts if other.part]
    wanted = family.parts[kind].node
    takers = dict.fromkeys(
        other.part.node.title for other in others if other.part and other.part.node != wanted
    )
    if not takers:
        return (all_parts[0] if all_parts[0].is_stranger else finding).check()
    found = " and ".join(dict.fromkeys(other.what for other in others))
    raise CheckpointError(
        f"{header.name} is {found}, no {family.label} {kind.replace('_', ' ')}: use {' or '.join(takers)}."
    )


def detect_all(header: Header, families: Iterable[PartsOfFamily]) -> tuple[Finding, ...]:
    """One Finding per part that the file holds, largest first; a single unknown one for a strange file."""
    families, header = tuple(families), split_header(header)
    groups = unwrap(header.shapes)
    findings = [examine(header, prefix, keys, families) for prefix, keys in groups.items()]
    findings.sort(key=lambda finding: (finding.part is None, -finding.parameters))
    if not all(finding.complete for finding in findings):
        strangers = (stranger for family in families for stranger in family.strangers)
        if stranger := next((one for one in strangers if one.fits(header.shapes)), None):
            return (_as_finding(header, stranger),)
    return tuple(findings) or (Finding(header.name),)


def _as_finding(header: Header, stranger: Stranger) -> Finding:
    """What is said of a file that is known and none of our parts."""
    return Finding(
        header.name,
        label=stranger.label,
        variant=stranger.label,
        unexpected=tuple(header.shapes),
        problem=stranger.what,
        parameters=header.parameters,
        dtype=header.dtype,
        keys=len(header.shapes),
    )


def sure_parts(keys: Iterable[str], families: Iterable[PartsOfFamily]) -> frozenset[tuple[str, Kind]]:
    """(family, kind) of every part that a file with these keys surely holds.

    Empty when some of the keys are of no known part: then nobody can say what the file is not. Looks for telling
    keys alone, so it takes microseconds.
    """
    found: set[tuple[str, Kind]] = set()
    for prefix, bare in unwrap(split_keys(keys)).items():
        here: set[tuple[str, Kind]] = {
            (family.id, part.kind)
            for family in families
            for part in family.parts.values()
            if part.is_under(prefix)
            and any(_telling(part, dialect) <= bare.keys() for dialect in part.dialects.values())
        }
        if not here:
            return frozenset()
        found |= here
    return frozenset(found)


def _telling(part: Part, dialect: KeyMap) -> set[str | None]:
    """A part's telling keys in the words of a dialect; None for one that it does not have."""
    return {dialect.reverse().find(key)[1] for key in part.signature}


def unwrap(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """{what lies around a part: {the part's own key: the file's}}."""
    groups: dict[str, dict[str, str]] = {}
    # plain keys first: a wrapped one that would take a plain one's name keeps its own, and so is told as unknown
    for key in sorted(keys, key=lambda key: INNER.search(key) is not None):
        fit = PREFIX.match(key)
        prefix = fit.group() if fit else ""
        group, bare = groups.setdefault(prefix, {}), key[len(prefix) :]
        plain = INNER.sub("", bare)
        group[bare if plain in group else plain] = key
    return groups
