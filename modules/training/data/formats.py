"""Data sets in the users' formats as lists of items.

"webvid", "normal" and "diffusers" are the words of aigc-apps/EasyAnimate and CogVideoX-Fun (`train_data_format`);
"captions" is the layout of ComfyUI's own dataset nodes and kohya-ss/sd-scripts; "paths" that of ExVideo
(modelscope/DiffSynth-Studio).
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..recipe import Format
from .items import IMAGES, VIDEOS, BadItem, DataSet, Item, Kind, Problem, Report, check_left, kind_of

# of an entry: what SVD is told of the clip's motion
BUCKET, MOST_BUCKET = "motion_bucket_id", 255
KINDS: dict[str, Kind] = {"video": "video", "image": "image"}


@dataclass(frozen=True)
class Row:
    """An item as its list has it: places to look for its file, the first of which counts."""

    places: tuple[str, ...]
    text: Any
    kind: Any = None
    control: Any = None
    repeat: int = 1
    bucket: Any = None


# what a list's line says, or why it says nothing
Line = Row | Problem


def read_items(folder: str | Path, format: Format = "auto") -> DataSet:
    """The items of a data folder; "auto" takes the format by what lies there.

    An item that cannot be used is a problem of the report. ValueError for a folder or a list that cannot be read,
    and where no item is left.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"There is no data folder {folder}: choose one that is there.")
    lines = list(READERS[format_of(root) if format == "auto" else format](root))
    items, problems = [], []
    for index, line in enumerate(lines):
        try:
            items.append(line if isinstance(line, Item) else _item(root, index, line))
        except BadItem as bad:
            name = line.name if isinstance(line, Problem) else line.places[0]
            problems.append(Problem(name, str(bad)))
    report = Report(len(lines), tuple(problems))
    check_left(root.name, len(items), report)
    return DataSet(root.name, tuple(items), report)


def format_of(root: Path) -> Format:
    """The format of a folder by what lies there."""
    if _imagefolder(root):
        return "diffusers"
    if list(root.glob("*.csv")):
        return "webvid"
    if list(root.glob("*.json")):
        first = next(iter(_json_list(_only(root, "*.json"))), None)
        return "paths" if isinstance(first, Mapping) and "path" in first else "normal"
    return "captions"


def _item(root: Path, index: int, line: Line) -> Item:
    if isinstance(line, Problem):
        raise BadItem(line.reason)
    if line.repeat < 1:
        raise BadItem("its folder's name says 0 times")
    path = _place(root, line.places, "the file")
    kind = line.kind or kind_of(path)
    if kind not in KINDS:
        raise BadItem(f"its type is {kind!r:.40}, not video or image")
    control = str(_place(root, (str(line.control),), "the control file")) if line.control else ""
    text = line.text.strip() if isinstance(line.text, str) else ""
    name = path.relative_to(root.resolve()).as_posix()
    bucket = _bucket(line.bucket)
    return Item(
        index, name, KINDS[kind], text or None, str(path), control=control, repeat=line.repeat, bucket=bucket
    )


def _bucket(value: Any) -> float | None:
    """An item's own motion bucket; BadItem for what is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_BUCKET:
        raise BadItem(f"its {BUCKET} is {value!r:.40}, not a number from 0 to {MOST_BUCKET}")
    return float(value)


def _place(root: Path, places: tuple[str, ...], what: str) -> Path:
    """The first of some relative paths where a file lies; BadItem where none does, or outside the folder."""
    for place in places:
        path = (root / place).resolve()
        if not path.is_relative_to(root.resolve()):
            raise BadItem(f"{what} lies outside of the data folder")
        if path.is_file():
            return path
    raise BadItem(f"{what} is not there")


def _webvid(root: Path) -> Iterator[Line]:
    """CSV with videoid, name, page_dir; the videos below `videos` or beside the list."""
    path = _only(root, "*.csv")
    table = csv.DictReader(io.StringIO(_text(path), newline=""))
    if missing := {"videoid", "name"} - {*(table.fieldnames or ())}:
        raise ValueError(f"{path.name} lacks the column {' and '.join(sorted(missing))}: add it.")
    for number, row in enumerate(table, 2):
        if not row["videoid"]:
            yield Problem(f"line {number}", f"{path.name} names no videoid")
            continue
        file_name = f"{row['videoid']}.mp4"
        page = f"{row.get('page_dir') or '.'}/{file_name}"
        yield Row((f"videos/{file_name}", file_name, f"videos/{page}", page), row["name"], "video")


def _normal(root: Path) -> Iterator[Line]:
    """JSON list of file_path, text, type, control_file_path, motion_bucket_id.

    Sizes named there are not needed: files are opened.
    """
    path = _only(root, "*.json")
    for number, entry in enumerate(_json_list(path)):
        yield _entry(
            path,
            number,
            entry,
            "file_path",
            lambda entry, place: Row(
                (place,),
                entry.get("text"),
                entry.get("type"),
                entry.get("control_file_path"),
                bucket=entry.get(BUCKET),
            ),
        )


def _paths(root: Path) -> Iterator[Line]:
    """`metadata.json`, a list of path, and text where there is one."""
    path = _only(root, "*.json")
    for number, entry in enumerate(_json_list(path)):
        yield _entry(path, number, entry, "path", lambda entry, place: Row((place,), entry.get("text")))


def _diffusers(root: Path) -> Iterator[Line]:
    """Imagefolder: `metadata.jsonl` with file_name and text, in the folder or in `train` below it."""
    path = _imagefolder(root)
    if path is None:
        raise ValueError(f"{root.name} holds no metadata.jsonl, nor train/metadata.jsonl: add one.")
    beside = path.parent.relative_to(root)
    for number, text in enumerate(_text(path).split("\n")):
        if text.strip():
            entry = _parsed(path, text, number + 1)
            yield _entry(
                path,
                number,
                entry,
                "file_name",
                lambda entry, place: Row(((beside / place).as_posix(),), entry.get("text")),
            )


def _captions(root: Path) -> Iterator[Line]:
    """Clips and pictures with a .txt beside each; folders below count as often as the number before their name."""
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
        name, (*folders, _) = path.relative_to(root).as_posix(), path.relative_to(root).parts
        number = folders[0].partition("_")[0] if folders else ""
        if path.is_symlink() and path.is_dir():
            yield Problem(name, "it is a link to a folder, which is not followed")
        elif _is_shown(root, path) and len(folders) > 1:
            yield Problem(name, "it lies more than one folder below the data folder")
        elif _is_shown(root, path):
            yield _captioned(root, path, int(number) if number.isdecimal() else 1)


def _is_shown(root: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in VIDEOS | IMAGES and not hidden


def _captioned(root: Path, path: Path, repeat: int) -> Line:
    name, caption = path.relative_to(root).as_posix(), path.with_suffix(".txt")
    try:
        return Row((name,), _text(caption) if caption.is_file() else None, repeat=repeat)
    except ValueError:
        return Problem(name, "its caption is not text in UTF-8")


READERS: Mapping[str, Callable[[Path], Iterator[Line]]] = {
    "webvid": _webvid,
    "normal": _normal,
    "diffusers": _diffusers,
    "captions": _captions,
    "paths": _paths,
}


def _entry(path: Path, number: int, entry: Any, key: str, row: Callable[[Mapping, str], Row]) -> Line:
    place = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(place, str) or not place:
        return Problem(f"entry {number + 1}", f"{path.name} names no {key}")
    return row(entry, place)


def _imagefolder(root: Path) -> Path | None:
    places = (root / "metadata.jsonl", root / "train" / "metadata.jsonl")
    return next((path for path in places if path.is_file()), None)


def _only(root: Path, pattern: str) -> Path:
    """The one file of a pattern, of several the one called metadata; ValueError where neither is there."""
    files, usual = sorted(root.glob(pattern)), root / pattern.replace("*", "metadata")
    if len(files) == 1 or usual in files:
        return files[0] if len(files) == 1 else usual
    names = ", ".join(path.name for path in files) or "none"
    raise ValueError(
        f"The data folder {root.name} must hold one {pattern} that lists its items, or {usual.name}: found {names}."
    )


def _json_list(path: Path) -> list[Any]:
    entries = _parsed(path, _text(path), 1)
    if not isinstance(entries, list):
        raise ValueError(f"{path.name} must be a list of items: it is not.")
    return entries


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name} is not JSON: {error.msg} in line {line + error.lineno - 1}."
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8: save it anew as UTF-8.") from error
