"""Which files belong together: shards and their index, variants of one set, and what lies beside them on a disk."""

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointError, shown, shown_list, special_kind, unreadable

SUFFIX = ".safetensors"
# what torch.save's files are called
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
COMPANION = "._"  # how macOS names what it keeps beside a file on foreign drives
# `model.fp16-00001-of-00002`, and as older diffusers wrote it `model-00001-of-00002.fp16`
ENDS = r"\.(?:safetensors|bin|ckpt|pth?)"
SHARD = re.compile(rf"(.+)-([0-9]{{5}})-of-([0-9]{{5}})(\.[\w-]+)?{ENDS}", re.IGNORECASE)
# `model.safetensors.index.fp16.json`, and as older diffusers wrote it `model.safetensors.fp16.index.json`
INDEX = re.compile(rf"(.+)({ENDS})(\.[\w-]+)?\.index(\.[\w-]+)?\.json", re.IGNORECASE)
MAX_JSON_BYTES = 64 * 2**20
MAX_DIGITS = 100  # of a number in a settings file


@dataclass(frozen=True)
class WeightSet:
    """The files that hold one set of weights together, and what their index promises."""

    files: tuple[Path, ...]
    index: Path | None = None
    keys: tuple[str, ...] = ()  # that the index names


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights `path` stands for: itself, its shards, or a folder's only set."""
    return weight_set(path).files


def weight_set(path: Path) -> WeightSet:
    """The weights that `path` stands for: a file, a shard or index of many files, or a folder's only set."""
    if os.path.isdir(path):
        return _main_set(path)
    if path.name.startswith(COMPANION):
        return WeightSet((path,))
    if INDEX.fullmatch(path.name):
        return _indexed(path)
    if shard := SHARD.fullmatch(path.name):
        members = _sets(path.parent).get(_set_name(path.name), _Members())
        return _indexed(members.index) if members.index else _numbered(path, shard, members.shards)
    return WeightSet((path,))


def names_in(folder: Path) -> list[str]:
    """Names of everything in a folder but macOS's companions, sorted; CheckpointError when it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(COMPANION))
    except OSError as problem:
        raise unreadable(folder, problem) from None


def weights_in(folder: Path) -> list[Path]:
    """Every weight file of a folder, sorted; pickles only where there is no safetensors file."""
    names = names_in(folder)
    plain = [name for name in names if name.lower().endswith(SUFFIX)]
    return [folder / name for name in plain or names if name.lower().endswith((SUFFIX, *PICKLED))]


def component_folders(path: str | Path) -> dict[str, Path]:
    """{component: folder} of a diffusers pipeline folder (transformer, vae, text_encoder); else empty."""
    path = Path(path)
    if not os.path.isdir(path):
        return {}
    return {name: path / name for name in names_in(path) if _has_weights(path / name)}


def is_alone(files: tuple[Path, ...]) -> bool:
    """Whether the folder of a set holds that set alone, be it in several precisions.

    Pickles beside safetensors files do not count; those beside a pickle do.
    """
    folder = files[0].parent
    try:
        sets = _sets(folder)
        if files[0].name.lower().endswith(SUFFIX):
            return bool(_main_set(folder).files)
    except CheckpointError:
        return False
    return _main_name({name.partition("/")[2] for name in sets}) is not None


def _has_weights(folder: Path) -> bool:
    """Whether a folder can be looked into and holds weights; others beside a pipeline's parts do not matter."""
    try:
        return os.path.isdir(folder) and bool(weights_in(folder))
    except CheckpointError:
        return False


@dataclass
class _Members:
    """What a folder holds of one set, by its kinds of files."""

    whole: Path | None = None
    index: Path | None = None
    shards: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.shards, *((self.whole,) if self.whole else ()))


def _set_name(name: str) -> str:
    """What the files of one set have in common, their suffix first: "model" and "model.fp16" are two sets."""
    if shard := SHARD.fullmatch(name):
        stem, suffix = shard.group(1) + (shard.group(4) or ""), os.path.splitext(name)[1]
    elif index := INDEX.fullmatch(name):
        stem, suffix = index.group(1) + (index.group(3) or "") + (index.group(4) or ""), index.group(2)
    else:
        stem, suffix = os.path.splitext(name)
    return f"{suffix.lower()}/{stem}"


def _sets(folder: Path) -> dict[str, _Members]:
    """{name of a set: its files} of a folder."""
    sets: dict[str, _Members] = {}
    for name in names_in(folder):
        is_index = INDEX.fullmatch(name)
        if not is_index and not name.lower().endswith((SUFFIX, *PICKLED)):
            continue
        members = sets.setdefault(_set_name(name), _Members())
        if is_index:
            members.index = folder / name
        elif SHARD.fullmatch(name):
            members.shards += (folder / name,)
        else:
            members.whole = folder / name
    return sets


def _main_name(names: Collection[str]) -> str | None:
    """Of the names of several precisions of one set the plain one; None where there are several sets."""
    fits = (name for name in names if all(other == name or other.startswith(name + ".") for other in names))
    return next(fits, None)


def _main_set(folder: Path) -> WeightSet:
    """A folder's only set; of several precisions of one set the plain one, as diffusers does.

    Where there are safetensors files, pickles do not count: many folders hold the same weights as both.
    """
    sets = _sets(folder)
    sets = {name: members for name, members in sets.items() if name.startswith(SUFFIX)} or sets
    if (main := _main_name(sets)) is not None:
        return _as_set(sets[main])
    indices = [members.index for members in sets.values() if members.index]
    if len(indices) == 1:
        return _indexed(indices[0])
    files = [file.name for members in sets.values() for file in members.files]
    if not files:
        raise CheckpointError(_nothing_in(folder))
    raise CheckpointError(
        f"The folder {shown(folder.name)} holds {len(files)} weight files ({shown_list(files)}). Choose one of "
        "the files."
    )


def _as_set(members: _Members) -> WeightSet:
    if members.index:
        return _indexed(members.index)
    if members.whole:
        return WeightSet((members.whole,))
    first = members.shards[0]
    shard = SHARD.fullmatch(first.name)
    assert shard is not None
    return _numbered(first, shard, members.shards)


def _nothing_in(folder: Path) -> str:
    if found := sorted(component_folders(folder)):
        return (
            f"The folder {shown(folder.name)} holds a whole pipeline ({shown_list(found)}). Choose one of these "
            "folders."
        )
    return (
        f"The folder {shown(folder.name)} holds no .safetensors file, and none of torch's ({', '.join(PICKLED)}). "
        "Download the folder's weights in safetensors format, or choose a file."
    )


def _indexed(index: Path) -> WeightSet:
    weight_map = _weight_map(index)
    names = sorted({str(name) for name in weight_map.values()})
    if not all(_is_plain(name) for name in names):
        raise CheckpointError(f"{shown(index.name)} points outside its folder. Download the index again.")
    missing = [name for name in names if not os.path.exists(index.parent / name)]
    if missing:
        raise CheckpointError(
            f"{shown(index.name)} names {len(names)} files, {len(missing)} are not there: "
            f"{shown_list(missing)}. Download them into the same folder."
        )
    return WeightSet(tuple(index.parent / name for name in names), index, tuple(weight_map))


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder."""
    return Path(name).name == name and name not in ("", "..") and not {"\\", "\0"} & {*name}


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{shown(index.name)} has no weight_map. Download the index again.")
    return weight_map


def _numbered(path: Path, shard: re.Match[str], shards: tuple[Path, ...]) -> WeightSet:
    """The shards of a set without an index, of the same total as `path`."""
    total = shard.group(3)
    same = (file for file in shards if (fit := SHARD.fullmatch(file.name)) and fit.group(3) == total)
    files = tuple(same)
    if len(files) != int(total):
        raise CheckpointError(
            f"{shown(path.name)} is one of {int(total)} files, {len(files)} are there. "
            "Download the others into the same folder."
        )
    return WeightSet(files)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a small file; CheckpointError when it is none."""
    name = shown(file.name)
    try:
        found = file.stat()
        if special := special_kind(found.st_mode):
            raise CheckpointError(f"{name} is {special}, not a settings file. Download it again.")
        if found.st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{name} is too large to be a settings file. Download it again.")
        content = parse_json(file.read_bytes() if found.st_size else b"")
    except OSError as problem:
        raise unreadable(file, problem) from None
    if content is None:
        raise CheckpointError(f"{name} is not readable JSON. Download it again.")
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} holds no JSON object. Download it again.")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text stands for; None for one that is damaged or without measure."""
    try:
        return json.loads(text, parse_int=_whole_number)
    except (ValueError, RecursionError):
        return None


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(digits)
    return int(digits)
