"""Full-size checkpoint files with random weights, in the published layouts, for our own loaders.

Keys and shapes are those of tests/keys. Numbers keep every layer's output near its input's size.
"""

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...tests.checkpoints import BY_NAME
from . import measure
from .report import Report

FILES = {  # place below models/: key list and dtype
    "SVD/svd-xt.safetensors": ("svd-xt", torch.float16),
    "SVD/exvideo.safetensors": ("svd-exvideo", torch.float16),
    "CogVideo/5b.safetensors": ("cogvideox-5b", torch.bfloat16),
    "CogVideo/vae.safetensors": ("cogvideox-vae", torch.bfloat16),
}


def write_all(report: Report) -> None:
    """Every file below `base`/models, made on the card: a billion numbers take a CPU half a minute."""
    for place, (name, dtype) in FILES.items():
        with report.guarded(place):
            path = report.folder / "base" / "models" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = draw(BY_NAME[name].shapes, dtype)
            if report.tiny:
                tensors = {key: value[:1] for key, value in tensors.items()}
            save_file(tensors, path)
            report.add(place, gib=round(path.stat().st_size / measure.GIB, 2))


def draw(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights by key; in a rehearsal without a card zeros, which need no memory."""
    if measure.device() == "cpu":
        return {key: torch.zeros(1, dtype=dtype) for key in shapes}
    generator = torch.Generator("cuda").manual_seed(0)
    return {key: _one(key, shape, dtype, generator).cpu() for key, shape in shapes.items()}


def _one(key: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator, device="cuda", dtype=dtype)
    if len(shape) < 2:
        return 0.02 * noise + float(key.endswith("weight"))  # one axis: norms and biases
    if "embedding" in key:
        return 0.02 * noise
    return noise * torch.Size(shape[1:]).numel() ** -0.5
