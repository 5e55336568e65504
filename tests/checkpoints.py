"""Weight files for tests: key lists of published checkpoints, headers over no data, and damaged files."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from kinetograph.modules.weights.files import Header
from kinetograph.modules.weights.part import Part

KEYS = Path(__file__).parent / "keys"
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PUBLISHED = {  # specs: the number of keys of every published file
    "cogvideox-2b": 736,
    "cogvideox-5b": 1024,
    "cogvideox-5b-i2v": 1025,
    "cogvideox-1.5-5b": 1024,
    "cogvideox-1.5-5b-i2v": 1028,
    "cogvideox-fun-2b-inp": 736,
    "cogvideox-fun-5b-inp": 1024,
    "cogvideox-fun-1.5-5b-inp": 1024,
    "cogvideox-fun-2b-control": 736,
    "cogvideox-fun-5b-control": 1024,
    "cogvideox-vae": 436,
    "svd-xt": 2446,
    "svd-diffusers-unet": 1428,
    "svd-diffusers-vae": 374,
    "svd-diffusers-image-encoder": 520,
    "svd-exvideo": 528,
    "animatediff-v1": 560,
    "animatediff-v2": 588,  # AnimateDiff-Lightning's as well
    "animatediff-v3": 560,
    "animatediff-sdxl-beta": 420,
    "animatelcm": 546,
    "animatediff-sparsectrl-rgb": 486,
    "animatediff-sparsectrl-rgb-comfy": 486,
    "animatediff-sparsectrl-scribble": 500,
    "pixart-512": 604,
    "pixart-1024": 612,
    # with the positions, which are dropped as the learned text for no caption is
    "pixart-512-original": 437,
    "pixart-1024-original": 445,
    "easyanimate-v1-mm": 784,
    "easyanimate-portrait": 603,
    "sd-vae-diffusers": 248,
    "sd-vae-original": 248,
}


@dataclass(frozen=True)
class KeyList:
    """One file of tests/keys: its first line says family, kinds and variants, the others key and shape."""

    name: str
    family: str
    kinds: tuple  # of its parts, largest first: "diffusion_model+vae" in the file
    variant: str  # of each part, joined by " + "
    shapes: dict

    @property
    def kind(self):
        return self.kinds[0]


def read_key_list(path):
    lines = path.read_text().splitlines()
    family, kinds, variant = lines[0].removeprefix("# ").split(":")[0].split(" ", 2)
    rows = [line.split() for line in lines if not line.startswith("#")]
    shapes = {key: _shape(shape) for key, shape in rows}
    return KeyList(path.stem, family, tuple(kinds.split("+")), variant, shapes)


def _shape(text):
    return () if text == "scalar" else tuple(int(length) for length in text.split("x"))


KEY_LISTS = [read_key_list(path) for path in sorted(KEYS.glob("*.txt"))]
BY_NAME = {listed.name: listed for listed in KEY_LISTS}


def header(shapes, name="model.safetensors", dtype="BF16", settings=None):
    """What `read_header` gives for a file of these shapes."""
    return Header(name, (), shapes, dict.fromkeys(shapes, dtype), {}, settings)


def remember_shapes(monkeypatch):
    """Build each configuration's meta module once: hundreds of files in a test share one."""
    known = {}
    original = Part.shapes

    def shapes(part, config):
        if (part.kind, repr(config)) not in known:
            known[part.kind, repr(config)] = original(part, config)
        return known[part.kind, repr(config)]

    monkeypatch.setattr(Part, "shapes", shapes)


def header_bytes(shapes, dtype="BF16", metadata=None, size=None):
    """(header of a safetensors file with its length in front, bytes of data that follow).

    With `size` the header is written densely, as the format's own library does, and filled up to that size in all.
    """
    entries, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + SIZES[dtype] * torch.Size(shape).numel()
        entries[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    if metadata is not None:
        entries["__metadata__"] = metadata
    text = json.dumps(entries, separators=(",", ":") if size else None).encode()
    if size:
        text = text.ljust(size - end - 8)
    return struct.pack("<Q", len(text)) + text, end


def write_sparse(path, shapes, dtype="BF16", metadata=None, size=None):
    """A safetensors file of any size that takes no disk space: its weights are a hole."""
    head, data = header_bytes(shapes, dtype, metadata, size)
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + data)
    return path


def write_sparse_ckpt(path, shapes, dtype="F32", wrapper=None, beside=None):
    """A `.ckpt` of any size that torch itself writes and that takes no disk space: its weights are holes.

    `wrapper` is the name under which a trainer puts the weights, such as state_dict; `beside` are entries next to them.
    """
    weights = {key: torch.empty(shape, dtype=TORCH_DTYPES[dtype]) for key, shape in shapes.items()}
    content = {wrapper: weights} if wrapper else weights
    with torch.serialization.skip_data():
        torch.save({**content, **(beside or {})}, path)
    return path
