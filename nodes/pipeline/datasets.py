"""Data sets below the host's input folder, as nodes choose them and hand them on: a text in JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from ...modules.grid import LatentGrid
from ...modules.training import configuration
from ...modules.training.data.camera import MOVEMENTS
from ...modules.training.data.formats import read_items
from ...modules.training.data.items import DataSet
from ...modules.training.data.plan import Plan, plan_cuts
from ...modules.training.recipe import Data, Format
from ...modules.weights.errors import shown_list
from ...modules.weights.files import FileIdentity, file_identity
from ..host import files, progress

FORMATS: tuple[str, ...] = get_args(Format)
NO_CAMERA = "none"
CAMERAS = (NO_CAMERA, *MOVEMENTS)
ONE_SIZE, BUCKETS, TOKENS = SIZES = "one size", "buckets", "token length"
STRIDE, RATE = PACES = "every n-th frame", "frames per second"
USUAL, OWN = FURTHER = "usual", "chosen"
# what a model without any rule of its own takes: the pixels themselves
PIXELS = LatentGrid(channels=3, stride_t=1, stride_hw=1, lone_first=False)
# of a data set, for the sentence on captions
SHOWN = 3


def list_folders() -> list[str]:
    """Folders that may hold a data set."""
    return files.input_folders()


def post_problem(folder: Any, format: Any) -> str | None:  # noqa: A002
    """Why a folder holds no data set of a format, from its lists alone; None where nothing speaks against it."""
    if folder is None or format not in FORMATS:
        return None
    try:
        read_items(files.input_folder(folder), format)
    except ValueError as error:
        return f"folder: {error}"
    return None


def fingerprint(folder: Any) -> list[FileIdentity]:
    """What lies in a data folder now; nothing for one that is linked or gone."""
    try:
        root = files.input_folder(folder)
    except ValueError:
        return []
    return [file_identity(path) for path in sorted(root.rglob("*")) if path.is_file()]


def data_of(widgets: Mapping[str, Any]) -> Data:
    """The widgets of Training Data as a record. ValueError for what contradicts itself."""
    sizes, pace, further = widgets["sizes"], widgets["pace"], widgets["further"]
    plain = {name: widgets[name] for name in ("folder", "format", "width", "height", "frames", "flip")}
    plain |= {
        "camera": "" if widgets["camera"] == NO_CAMERA else widgets["camera"],
        "random_frames": widgets["random_frames"],
        "masks": widgets["masks"],
        "buckets": sizes["sizes"] != ONE_SIZE,
        "stride": pace.get("stride", 1),
        "fps": pace.get("fps", 0.0),
    }
    plain |= {name: value for name, value in sizes.items() if name != "sizes"}
    plain |= {name: value for name, value in further.items() if name != "further"}
    return configuration.record(Data, plain, "data")


def describe(widgets: Mapping[str, Any]) -> tuple[str, str]:
    """(the data set as a text for Train Video Model, the report for people).

    Every file is opened, none decoded beyond its first frame. ValueError where nothing is left to train on, or the
    choices contradict each other.
    """
    data = data_of(widgets)
    dataset = read_items(files.input_folder(data.folder), data.format)
    bar = progress.steps(len(dataset.items))
    plan = plan_cuts(dataset, data, PIXELS, needs_text=False, advance=bar.advance)
    return json.dumps(asdict(data)), "\n".join(_sentences(dataset, plan, data))


def read(text: str) -> tuple[Data, Path]:
    """A text of Training Data again, and the folder that it names; ValueError for any other text."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"data comes from Training Data, over a link: got {text[:60]!r}.")
    data: Data = configuration.record(Data, values, "data")
    return data, files.input_folder(data.folder)


def _sentences(dataset: DataSet, plan: Plan, data: Data) -> Iterator[str]:
    used = {cut.item.index: cut for cut in plan.cuts}
    clips = sum(cut.fps is not None for cut in used.values())
    kinds = {"clips": clips, "pictures": len(used) - clips}
    counted = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    yield f"{dataset.name}: {counted} of {dataset.report.total} items, {len(plan.cuts)} cuts."
    for size, number in _counts((cut.width, cut.height, len(cut.frames)) for cut in plan.cuts):
        width, height, frames = size
        yield f"{number} of {width}x{height}, {frames} frame{'s' if frames > 1 else ''}."
    silent = [cut.item.name for cut in used.values() if not cut.item.text]
    if silent:
        yield f"{len(silent)} have no caption ({shown_list(silent, SHOWN)}): SVD needs none, every other model leaves them out."
    if data.camera:
        yield f"The camera movement {data.camera} is laid over every clip."
    yield from plan.report.sentences()


def _counts(sizes: Iterator[tuple[int, int, int]]) -> list[tuple[tuple[int, int, int], int]]:
    """Sizes with how many have each, the most frequent first."""
    found: dict[tuple[int, int, int], int] = {}
    for size in sizes:
        found[size] = found.get(size, 0) + 1
    return sorted(found.items(), key=lambda entry: -entry[1])[:SHOWN]
