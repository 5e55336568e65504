"""What numbers are stored as: the words of safetensors files beside torch's dtypes."""

from collections.abc import Mapping
from math import prod

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
WORDS = {dtype: word for word, dtype in DTYPES.items()}


def main_dtype(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> str:
    """The dtype with the most numbers, as torch names it (`bfloat16`); "none" without keys."""
    counts: dict[str, int] = {}
    for key, shape in shapes.items():
        counts[dtypes[key]] = counts.get(dtypes[key], 0) + prod(shape)
    if not counts:
        return "none"
    word = max(counts, key=lambda name: counts[name])
    return str(DTYPES[word]).removeprefix("torch.") if word in DTYPES else word
