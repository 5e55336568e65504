"""Our networks beside those of another checkout of this repository: `python -m benchmarks compare OLD_CHECKOUT`.

Both are imported into one process, under names of their own, through the records in FAMILIES; both hold the same
tensors as weights. Whatever else moved between them does not matter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import ours
from .harness import OURS, Row, Setting, assert_parity, time_rows
from .memory import peak_live_bytes

OLD = "old"
TOLERANCE = 1e-4  # of the largest number; the difference itself stands in the row
TEXT_TOKENS = 226
Values = tuple[Tensor, ...]


@dataclass(frozen=True)
class Run:
    """One network of some size at work on a clip of some size, (frames, height, width) in cells."""

    name: str
    clip: tuple[int, int, int]
    sizes: dict[str, Any]
    batch: int = 1


@dataclass(frozen=True)
class Subject:
    """What is compared of one case."""

    family: str
    kind: str
    values: Callable[[Run, torch.dtype, str], Values]
    call: Callable[[Any, Values], Tensor]
    dtype: torch.dtype  # that users run it in; times are taken in float32
    timed: tuple[Run, ...]
    timed_in_full: tuple[Run, ...]
    counted: tuple[Run, ...]


def times(setting: Setting) -> Iterator[Row]:
    """CPU time of both by the size of the clip, after a look at whether they give the same."""
    subject = SUBJECTS[setting.case]
    for run in subject.timed + (subject.timed_in_full if setting.full else ()):
        pair = _pair(subject, run, Path(setting.old), torch.float32, "cpu")
        values = subject.values(run, torch.float32, "cpu")
        works = {name: partial(subject.call, network, values) for name, network in pair.items()}
        with torch.inference_mode():
            outputs = {name: work() for name, work in works.items()}
        parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
        yield from time_rows(run.name, works, setting, parity)


def counts(setting: Setting) -> Iterator[Row]:
    """Bytes alive at the peak of both, at published sizes, on meta tensors as on an accelerator."""
    subject = SUBJECTS[setting.case]
    for run in subject.counted:
        pair = _pair(subject, run, Path(setting.old), subject.dtype, "meta")
        values = subject.values(run, subject.dtype, "meta")
        with torch.inference_mode():
            samples = {
                name: [float(peak_live_bytes(partial(subject.call, network, values)))]
                for name, network in pair.items()
            }
        yield Row(run.name, "peak bytes", samples)


def _pair(subject: Subject, run: Run, old: Path, dtype: torch.dtype, device: str) -> dict[str, nn.Module]:
    """Ours and the old one, with the same tensors as weights."""
    pack = ours.import_pack(old)
    place = subject.family, subject.kind
    model = ours.network(*place, ours.config(*place, **run.sizes), dtype, device)
    ours.draw(model)
    config = ours.config(*place, pack=pack, **run.sizes)
    before = ours.network(*place, config, dtype, "meta", pack)
    before.load_state_dict(model.state_dict(), assign=True)
    return {OURS: model, OLD: before}


def _transformer_values(run: Run, dtype: torch.dtype, device: str) -> Values:
    """x, timestep, context."""
    frames, h, w = run.clip
    channels = run.sizes.get("in_channels", 16)
    return (
        ours.noise(1, dtype, device, run.batch, channels, frames, h, w),
        torch.full((run.batch,), 479.0, device=device),
        ours.noise(2, dtype, device, run.batch, TEXT_TOKENS, 4096),
    )


def _unet_values(run: Run, dtype: torch.dtype, device: str) -> Values:
    """x, timestep, context, y."""
    frames, h, w = run.clip
    return (
        ours.noise(1, dtype, device, frames, 8, h, w),
        torch.full((1,), 0.5, device=device),
        ours.noise(2, dtype, device, 1, 1, 1024),
        ours.noise(3, dtype, device, 1, 768),
    )


COG_DIT = Subject(
    family="cogvideox",
    kind="diffusion_model",
    values=_transformer_values,
    call=lambda network, values: network(*values),
    dtype=torch.bfloat16,
    timed=(
        Run("width 512, 13 latent frames", (13, 12, 16), {"num_heads": 8, "num_layers": 2}),
        Run("width 512, 33 latent frames", (33, 12, 16), {"num_heads": 8, "num_layers": 2}),
    ),
    timed_in_full=(
        Run("published width, 13 latent frames", (13, 12, 16), {"num_heads": 48, "num_layers": 2}),
    ),
    counted=(
        Run("5B, 49 frames 720x480, CFG 2", (13, 60, 90), {"num_layers": 2}, batch=2),
        Run("5B, 129 frames 720x480, CFG 2", (33, 60, 90), {"num_layers": 2}, batch=2),
        Run(
            "1.5-5B, 81 frames 1360x768, CFG 2", (22, 96, 170), {"num_layers": 2, "patch_size_t": 2}, batch=2
        ),
    ),
)
NARROW = {"channels": (64, 128, 256, 256)}
SVD_UNET = Subject(
    family="svd",
    kind="diffusion_model",
    values=_unet_values,
    call=lambda network, values: network(*values[:3], y=values[3]),
    dtype=torch.float16,
    timed=(
        Run("a fifth of the width, 14 frames", (14, 16, 24), NARROW),
        Run("a fifth of the width, ExVideo, 16 frames", (16, 16, 16), {**NARROW, "exvideo": True}),
    ),
    timed_in_full=(Run("published width, 7 frames", (7, 16, 24), {}),),
    counted=(
        Run("25 frames 1024x576", (25, 72, 128), {}),
        Run("ExVideo, 128 frames 512x512", (128, 64, 64), {"exvideo": True}),
    ),
)
SVD_VAE = Subject(
    family="svd",
    kind="vae",
    values=lambda run, dtype, device: (ours.noise(1, dtype, device, run.clip[0], 4, *run.clip[1:]),),
    call=lambda network, values: network.decode(*values),
    dtype=torch.float16,
    timed=(
        Run("a quarter of the width, chunk 1", (1, 16, 16), {"channels": (32, 64, 128, 128)}),
        Run("a quarter of the width, chunk 8", (8, 16, 16), {"channels": (32, 64, 128, 128)}),
    ),
    timed_in_full=(Run("published width, chunk 4", (4, 8, 8), {}),),
    counted=tuple(Run(f"chunk {chunk}, 1024x576", (chunk, 72, 128), {}) for chunk in (1, 8)),
)
COG_VAE = Subject(
    family="cogvideox",
    kind="vae",
    values=lambda run, dtype, device: (ours.noise(1, dtype, device, 1, 16, *run.clip),),
    call=lambda network, values: network.decode(*values),
    dtype=torch.bfloat16,
    timed=(
        Run("half the width, 9 frames", (3, 6, 6), {"block_out_channels": (64, 128, 128, 256)}),
        Run("half the width, 17 frames", (5, 4, 4), {"block_out_channels": (64, 128, 128, 256)}),
    ),
    timed_in_full=(Run("published width, 9 frames", (3, 8, 8), {}),),
    counted=(
        Run("9 frames 720x480", (3, 60, 90), {}),
        Run("17 frames 720x480", (5, 60, 90), {}),
        Run("9 frames 1360x768", (3, 96, 170), {}),
    ),
)
SUBJECTS = {"cog_dit": COG_DIT, "cog_vae": COG_VAE, "svd_unet": SVD_UNET, "svd_vae": SVD_VAE}
