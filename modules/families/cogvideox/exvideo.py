"""ExVideo for CogVideoX 5B (arXiv 2406.14130, sec. 3.3): a LoRA of the transformer's blocks, for clips of 129 frames.

No layer is added: 129 frames are 33 latents, numbered on from the 13 that 5B was trained on.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ...weights.settings import whole
from ..family import Limits, Size
from .config import GRID, MAX_CELLS, MAX_FRAMES, CogVideoXConfig

# width and height in pixels, frames: ExVideo-CogVideoX-LoRA-129f-v1
EXVIDEO_SIZE: Size = (720, 480, 129)
# what its LoRA changes in each block; 8 x 42 blocks are its 336 modules
MODULES = (
    *(f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1.linear", "norm2.linear"),
)


def native_size(settings: Mapping[str, Any] | None) -> Size:
    """(width, height, frames) in pixels that a file was trained on: as published, unless its settings tell another."""
    settings = settings or {}
    width, height, frames = EXVIDEO_SIZE
    cells = (
        whole(settings, name, pixels // GRID.stride_hw, MAX_CELLS, GRID.patch_hw) * GRID.stride_hw
        for name, pixels in (("sample_width", width), ("sample_height", height))
    )
    return *cells, whole(settings, "sample_frames", frames, MAX_FRAMES)  # type: ignore[return-value]


def limits(size: Size) -> Limits:
    """No more frames than in training: beyond them it does what 5B does beyond its own."""
    return Limits(max_frames=size[2])


def is_exvideo(modules: Collection[str]) -> bool:
    """Whether a LoRA changes just what ExVideo's changes in every block, and in no other place."""
    blocks = {module.split(".")[1] for module in modules if module.startswith("transformer_blocks.")}
    wanted = {f"transformer_blocks.{i}.{module}" for i in blocks for module in MODULES}
    return bool(wanted) and wanted == {*modules}


def check_fit(name: str, config: CogVideoXConfig, modules: Collection[str]) -> None:
    """ValueError unless a network is 5B text-to-video, and a LoRA changes what ExVideo's does in every block."""
    if config.variant != "5B":
        raise ValueError(
            f"{name} is ExVideo for CogVideoX 5B, text to video: the model is CogVideoX {config.variant}. Load "
            "CogVideoX-5b."
        )
    wanted = {f"transformer_blocks.{i}.{module}" for i in range(config.num_layers) for module in MODULES}
    if missing := sorted(wanted.difference(modules)):
        raise ValueError(
            f"{name} is no ExVideo for CogVideoX: that changes {len(wanted)} modules of this model, this file lacks "
            f"{len(missing)} of them, such as {missing[0]}. Put it on with LoRA Stack."
        )
