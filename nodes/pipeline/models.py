"""The files in the model folders: their lists, and the parts that they hold."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from ...modules.catalogue import CATALOGUE, LORA
from ...modules.families import DOWNLOADS, FAMILIES
from ...modules.families.family import Family, Kind, Part
from ...modules.lora_origin import FOLDER
from ...modules.weights.checkpoint import Checkpoint, OpenCheckpoints, part_identity
from ...modules.weights.files import FileIdentity
from ..host.folders import ModelFolders

PARTS: tuple[Part, ...] = tuple(part for family in FAMILIES for part in family.parts.values())
CHECKPOINTS = OpenCheckpoints(FAMILIES)


def folders_of(kinds: Iterable[Kind]) -> tuple[str, ...]:
    """Keys of the model folders where `kinds` of parts may lie, once each, in the order in which they are searched."""
    return tuple(
        dict.fromkeys(key for kind in kinds for part in PARTS if part.kind == kind for key in part.folders)
    )


def components_of(kind: Kind) -> tuple[str, ...]:
    """What a kind of part is called inside a diffusers pipeline."""
    return tuple(dict.fromkeys(name for part in PARTS if part.kind == kind for name in part.components))


KINDS: tuple[Kind, ...] = tuple(dict.fromkeys(part.kind for part in PARTS))
# the host's folder for LoRA files first, then those of families that have their own
LORAS = tuple(dict.fromkeys((FOLDER, *(part.lora_folder for part in PARTS))))
# ours, for picture models that no loader of the host takes
PICTURES = ("SD",)
OWN = tuple(dict.fromkeys((*(part.folders[-1] for part in PARTS), *LORAS[1:], *PICTURES)))


def source_of(name: str) -> str:
    """Where a published model of that name comes from, a sentence; which template to try first for any other."""
    for release in DOWNLOADS.values():
        place = PurePosixPath(release.place)
        inner = place.parent if release.is_folder else place
        if name in (str(inner), f"{release.folder}/{inner}"):
            act = "fetches it" if release.is_at_hub else "says how to fetch it"
            return f'Model Download {act}: choose the release "{release.name}" there.'
    return "Model Download fetches published models; the templates that begin with try need none."


MODELS = ModelFolders(
    OWN, (*folders_of(KINDS), *LORAS, *PICTURES), components_of("diffusion_model"), source_of
)


def list_models(kinds: Iterable[Kind] | None = None) -> list[str]:
    """Names of the files and diffusers folders where `kinds` of parts may lie; of all, and of LoRA files, for None."""
    return MODELS.names(MODELS.keys if kinds is None else folders_of(kinds))


def list_loras(family: Family | None = None) -> list[str]:
    """Names of the host's LoRA files, without those that are surely none, or for another family than this one."""
    unless = CATALOGUE.is_no_lora if family is None else partial(_is_others, family, LORA)
    return MODELS.names(LORAS, pipelines=False, unless=unless)


def find_lora(name: str) -> Path:
    """Path of a LoRA file; ValueError says where it goes when it is not there."""
    return MODELS.find(name, LORAS)


def list_picture_models() -> list[str]:
    """Names of the files that Pocket Loader may open."""
    return MODELS.names(PICTURES, pipelines=False)


def find_picture_model(name: str) -> Path:
    """Path of a name from that list; ValueError says where the file goes when it is not there."""
    return MODELS.find(name, PICTURES)


def list_parts(family: Family, kind: Kind, kinds: tuple[Kind, ...] = ()) -> list[str]:
    """The same for `kinds`, without those that surely hold no `kind` of this family.

    What goes into a network, an extension, is no diffusers pipeline.
    """
    keys = folders_of(kinds or (kind,))
    return MODELS.names(keys, kind != "extension", partial(_is_others, family, kind))


def _is_others(family: Family, kind: Kind | Literal["lora"], path: Path) -> bool:
    # a motion module is no part of a pipeline
    if kind != LORA and not components_of(kind) and part_path(path, "diffusion_model") != path:
        return True
    inside = path if kind == LORA else part_path(path, kind)
    return CATALOGUE.is_others(inside, family.id, kind)


def find_model(name: str, kinds: Iterable[Kind] = KINDS) -> Path:
    """Path of a name from a list, looked for first where `kinds` of parts lie; ValueError when it is not there."""
    return MODELS.find(name, folders_of(kinds))


def part_path(path: Path, kind: Kind) -> Path:
    """The part of `kind` inside a diffusers pipeline folder, or `path` itself when it is that part."""
    return MODELS.part_path(path, components_of(kind)) if components_of(kind) else path


def open_checkpoint(path: Path) -> Checkpoint:
    """The file or component folder at a path, its header read once for a post and a run."""
    return CHECKPOINTS.open(path)


def identity(path: Path) -> tuple[FileIdentity, ...]:
    """What the files of a part are now: others are loaded again."""
    return part_identity(path)
