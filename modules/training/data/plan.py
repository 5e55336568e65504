"""What is cut from which item, before anything is decoded: so that sizes are known and errors come before long work."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...conditioning.sizes import Fits, frames_below
from ...grid import LatentGrid
from ..draws import uniform
from ..recipe import Data
from . import clips, sizes
from .checks import check_data
from .footage import open_control, open_item
from .items import BadItem, DataSet, Footage, Item, Problem, Report, check_left

# captions that a mirrored clip would belie
DIRECTION = re.compile(
    r"\b(left|right)(wards?)?\b|\b(pan|roll)(s|n?ing|n?ed)?\b|\b(anti-?|counter-?)?clockwise\b", re.I
)


@dataclass(frozen=True)
class Planned:
    """One cut of an item: all that chance decides of it but its mask's pixels."""

    item: Item
    # which of several cuts of the item, and the training's seed
    variant: int
    seed: int
    width: int
    height: int
    # numbers of the file's frames, in rising order
    frames: tuple[int, ...]
    # frames per second that the cut plays at; None: a picture
    fps: float | None
    # where the crop lies, 0..1 of what hangs over
    across: float
    down: float
    flipped: bool
    camera: str
    masked: bool
    # how often it fills the place of one sample of full length
    repeats: int
    enlarged: bool

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that decides the cut's pixels but the bytes of its files; the item's number is part of it for masks."""
        item, own = self.item, {**vars(self)}
        del own["item"], own["enlarged"], own["repeats"]
        return item.index, item.kind, item.begin, item.seconds, item.digest, tuple(sorted(own.items()))


@dataclass(frozen=True)
class Plan:
    """The cuts of a data set, in the order of its items, and what was left out."""

    cuts: tuple[Planned, ...]
    report: Report


def plan_cuts(
    dataset: DataSet,
    data: Data,
    grid: LatentGrid,
    seed: int = 0,
    needs_text: bool = True,
    fits: Fits = lambda latent_frames: True,
    advance: Callable[[], None] = lambda: None,
) -> Plan:
    """Every cut that a training takes from a data set; each file is opened, none decoded beyond its first frame.

    `fits` says whether the network takes so many latent frames. An item that cannot be used is reported; ValueError
    where none is left, or where the configuration asks for what the grid does not hold. `advance` is called after
    each item.
    """
    check_data(data, grid)
    cuts: list[Planned] = []
    problems: list[Problem] = []
    for item in dataset.items:
        try:
            cuts += _variants(item, data, grid, seed, needs_text, fits)
        except BadItem as bad:
            problems.append(Problem(item.name, str(bad)))
        advance()
    report = dataset.report.with_problems(problems).with_notes(_notes(cuts, data, grid, fits))
    check_left(dataset.name, len(cuts), report)
    return Plan(tuple(cuts), report)


def _variants(
    item: Item, data: Data, grid: LatentGrid, seed: int, needs_text: bool, fits: Fits
) -> list[Planned]:
    if needs_text and not item.text:
        raise BadItem("it has no caption")
    footage = open_item(item)
    planned = [plan_cut(item, footage, data, grid, variant, seed, fits) for variant in range(data.variants)]
    if item.control:
        there = open_control(item).num_frames
        if any(cut.frames[-1] >= there for cut in planned):
            raise BadItem("its control clip has fewer frames")
    return planned


def plan_cut(
    item: Item, footage: Footage, data: Data, grid: LatentGrid, variant: int, seed: int, fits: Fits
) -> Planned:
    """One cut of an open item; BadItem where it cannot be made."""
    key = item.index, variant, seed
    picture = footage.rate is None
    if picture and data.camera:
        raise BadItem("it is a picture, which shows no camera movement")
    base = sizes.choose_base(data, picture, footage.width, footage.height, *key)
    width, height = sizes.size_at(data, grid, base, footage.width, footage.height)
    frames, fps = ([0], None) if picture else _clip(footage, data, grid, base, key, fits)
    random_crop = data.crop == "random"
    return Planned(
        item,
        variant,
        seed,
        width,
        height,
        tuple(frames),
        fps,
        across=uniform("crop_across", *key) if random_crop else 0.5,
        down=uniform("crop_down", *key) if random_crop else 0.5,
        flipped=data.flip and not directional(item) and uniform("flip", *key) < 0.5,
        camera=data.camera,
        masked=data.masks == "fun",
        repeats=sizes.repeats(len(frames), width, height, data),
        enlarged=footage.width < width or footage.height < height,
    )


def _clip(
    footage: Footage, data: Data, grid: LatentGrid, base: int, key: tuple[int, int, int], fits: Fits
) -> tuple[list[int], float]:
    """(numbers of the file's frames, frames per second they play at) of a clip."""
    rate = footage.rate or 1.0
    stride = clips.stride_of(data.stride, data.fps, rate)
    first, last = clips.window(footage.num_frames, data.start, data.end)
    wanted = frames_below(grid, data.frames, fits)
    if data.token_size:
        wanted = min(wanted, sizes.budget_frames(grid, data.frames, data.token_size, base, fits))
    there = clips.clip_frames(last - first, wanted, stride)
    # where samples have several lengths anyway, a short file gives a short one
    if there < wanted and not (data.token_size or data.random_frames != "none"):
        raise BadItem(f"it has fewer frames than a clip of {wanted}, {_apart(data)}, takes")
    kept = clips.random_length(data.random_frames, there, *key) if there else 0
    folded = frames_below(grid, max(1, kept), fits)
    if folded > there:
        raise BadItem("it has fewer frames than the shortest clip of this model takes")
    place = uniform("start", *key) if data.begin == "random" else 0.0
    return clips.choose_frames(first, last, there, stride, place)[:folded], rate / stride


def _apart(data: Data) -> str:
    return (
        f"{data.fps:g} a second" if data.fps else f"{data.stride} apart" if data.stride > 1 else "one by one"
    )


def directional(item: Item) -> bool:
    """Whether a caption names a side or a turn, so that the clip must not be mirrored."""
    return bool(DIRECTION.search(item.text or ""))


def _notes(cuts: list[Planned], data: Data, grid: LatentGrid, fits: Fits) -> Iterator[str]:
    length, used = frames_below(grid, data.frames, fits), len({cut.item.index for cut in cuts})
    enlarged = len({cut.item.index for cut in cuts if cut.enlarged})
    kept = len({cut.item.index for cut in cuts if directional(cut.item)}) if data.flip else 0
    if length != data.frames:
        yield f"Clips have {length} frames: this model does not take {data.frames}."
    if enlarged:
        yield f"{enlarged} of {used} enlarged: smaller than the size of the training."
    if kept:
        yield f"{kept} of {used} never mirrored: the caption names a side or a turn."
