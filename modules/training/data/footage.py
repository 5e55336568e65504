"""Items opened: clips through PyAV, pictures through PIL, and only the frames that somebody wants."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...videofile.errors import VideoError
from ...videofile.footage import frame_times, open_film, read_at
from .items import LEAST_SIDE, BadItem, Footage, Item, Kind, kind_of

# first letters of PIL's modes of 16 bits, 32 bits and floats: as RGB it would cut them off
DEEP = "IF"
UNREADABLE = "the file cannot be read as a {}"
BROKEN = "the file breaks off, is damaged or was changed meanwhile"


def open_item(item: Item) -> Footage:
    """The frames of an item; BadItem where they cannot be read or are too small."""
    footage = item.source or open_file(item.path, item.kind, item.begin, item.seconds)
    if min(footage.width, footage.height) < LEAST_SIDE:
        raise BadItem(f"its pictures have less than {LEAST_SIDE} pixels on a side")
    return footage


def open_control(item: Item) -> Footage:
    """The frames that an item is to follow; BadItem where they cannot be read."""
    try:
        return open_file(item.control, kind_of(Path(item.control)))
    except BadItem as bad:
        raise BadItem(f"its control file cannot be used: {bad}") from bad


def open_file(path: str, kind: Kind, begin: float = 0.0, seconds: float = 0.0) -> Footage:
    """The frames of a file, of a video's part; nothing but the first is decoded yet."""
    return _picture(path) if kind == "image" else _clip(path, begin, seconds)


def _clip(path: str, begin: float, seconds: float) -> Footage:
    try:
        film = open_film(path, begin, seconds)
        times = frame_times(film)
    except VideoError as error:
        raise BadItem(UNREADABLE.format("video")) from error

    def read(numbers: Sequence[int]) -> Iterator[Tensor]:
        try:
            for shot in read_at(film, [times[number] for number in numbers]):
                yield torch.from_numpy(shot)
        except VideoError as error:
            raise BadItem(BROKEN) from error

    return Footage(len(times), film.width, film.height, float(film.rate), read)


def _picture(path: str) -> Footage:
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in DEEP:
                raise BadItem("its pictures have more than 8 bits a colour: save them with 8")
            width, height = ImageOps.exif_transpose(picture).size
    except BadItem:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadItem(UNREADABLE.format("picture")) from error
    return Footage(1, width, height, None, partial(_read_picture, path))


def _read_picture(path: str, numbers: Sequence[int]) -> Iterator[Tensor]:
    try:
        with Image.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadItem(BROKEN) from error
    yield from (torch.from_numpy(pixels) for _ in numbers)
