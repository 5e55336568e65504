"""Items out of lists of clips, pictures and captions, as ComfyUI's own dataset nodes hand them on."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .items import BadItem, DataSet, Footage, Item, Problem, Report, check_left, kind_of


@dataclass(frozen=True)
class Source:
    """A clip or a picture of a list: in a file, `seconds` of it from `begin` on, or in memory."""

    path: str = ""
    begin: float = 0.0
    seconds: float = 0.0
    footage: Footage | None = None
    # tells frames in memory from others
    digest: str = ""


def frames_source(images_fhwc: Tensor, rate: float = 0.0) -> Source:
    """Frames in memory, (f, h, w, 3 or more) in 0..1: one is a picture, several are a clip of so many a second.

    ValueError for several frames without a rate.
    """
    num_frames, height, width, _ = images_fhwc.shape
    if num_frames > 1 and rate <= 0:
        raise ValueError(f"{num_frames} frames make a clip, which needs its frames per second: got {rate:g}.")
    read = partial(_read, images_fhwc)
    footage = Footage(num_frames, width, height, rate if num_frames > 1 else None, read)
    digest = hashlib.blake2b(repr((tuple(images_fhwc.shape), rate)).encode(), digest_size=16)
    for frame in read(range(num_frames)):
        digest.update(frame.numpy().tobytes())
    return Source(footage=footage, digest=digest.hexdigest())


def items_from_lists(name: str, sources: Sequence[Source], texts: Sequence[str]) -> DataSet:
    """A data set of clips and pictures, each with the caption of its place; "" is none.

    `name` says in messages where they came from. ValueError where lists differ in length, and for empty ones.
    """
    if len(sources) != len(texts):
        raise ValueError(
            f"{name}: got {len(sources)} clips or pictures and {len(texts)} captions. Give one caption to each."
        )
    items: list[Item] = []
    problems: list[Problem] = []
    for index, (source, text) in enumerate(zip(sources, texts, strict=True)):
        item = Item(index, _name(source, index), "video", text.strip() or None)
        try:
            items.append(_filled(item, source))
        except BadItem as bad:
            problems.append(Problem(item.name, str(bad)))
    report = Report(len(sources), tuple(problems))
    check_left(name, len(items), report)
    return DataSet(name, tuple(items), report)


def _filled(item: Item, source: Source) -> Item:
    if source.footage:
        kind = "image" if source.footage.rate is None else "video"
        return replace(item, kind=kind, source=source.footage, digest=source.digest)
    kind = kind_of(Path(source.path))
    return replace(item, kind=kind, path=source.path, begin=source.begin, seconds=source.seconds)


def _name(source: Source, index: int) -> str:
    return Path(source.path).name if source.path else f"number {index + 1}"


def _read(images_fhwc: Tensor, numbers: Sequence[int]) -> Iterator[Tensor]:
    for number in numbers:
        frame_hwc = images_fhwc[number, ..., :3].to("cpu", torch.float32)
        yield (frame_hwc.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
