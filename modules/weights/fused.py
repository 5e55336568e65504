"""Layers that a publisher keeps as one tensor and that are several here: queries, keys and values, rows behind rows.

A key of a header and a tensor of a file become one for each layer, `blocks.0.attn.qkv[1/3].weight` the second of three.
Key tables have rows for these.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from .files import Header

# the end of a layer's name -> how many it stands for
FUSED = (
    (re.compile(r"(?:^|\.)blocks\.\d+\.attn\.qkv$"), 3),
    (re.compile(r"(?:^|\.)blocks\.\d+\.cross_attn\.kv_linear$"), 2),
)
LEAVES = ("weight", "bias")
PART = re.compile(r"\[\d/\d\](?=\.)")


def part_of(layer: str, number: int, count: int) -> str:
    """The name of one of several layers, from 0."""
    return f"{layer}[{number}/{count}]"


def whole(key: str) -> str:
    """The key as the file has it."""
    return PART.sub("", key)


def count_of(key: str) -> int:
    """How many layers a key stands for."""
    layer, _, leaf = key.rpartition(".")
    if leaf not in LEAVES:
        return 1
    return next((count for pattern, count in FUSED if pattern.search(layer)), 1)


def split_keys(keys: Iterable[str]) -> dict[str, str]:
    """The key of each layer -> the file's."""
    parts: dict[str, str] = {}
    for key in keys:
        count, (layer, _, leaf) = count_of(key), key.rpartition(".")
        names = [key] if count == 1 else [f"{part_of(layer, n, count)}.{leaf}" for n in range(count)]
        parts |= dict.fromkeys(names, key)
    return parts


def split_header(header: Header) -> Header:
    """The header with a key for each layer; a tensor that does not divide into its layers keeps its key."""
    fits = {
        key for key, shape in header.shapes.items()
        if count_of(key) > 1 and shape and not shape[0] % count_of(key)
    }  # fmt: skip
    if not fits:
        return header
    parts = split_keys(fits)
    rest = {key: shape for key, shape in header.shapes.items() if key not in fits}
    shapes = {
        part: (header.shapes[key][0] // count_of(key), *header.shapes[key][1:]) for part, key in parts.items()
    }
    dtypes = {part: header.dtypes[key] for part, key in parts.items()}
    return replace(header, shapes=rest | shapes, dtypes={**header.dtypes, **dtypes})


def take(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The tensor of a key; of one of several layers the rows that are its, not a copy."""
    if key in tensors or not PART.search(key):
        return tensors[key]
    own = whole(key)
    number = int(key[len(own.rpartition(".")[0]) + 1])
    return tensors[own].chunk(count_of(own))[number]
