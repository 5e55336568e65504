"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import (
    conditioning,
    continuation,
    decoding,
    downloads,
    inpainting,
    inspection,
    latents,
    loaders,
    lora,
    motion,
    picture_loaders,
    sampling,
    video,
    windows,
)

NODES = (
    *loaders.NODES,
    *picture_loaders.NODES,
    *lora.NODES,
    *latents.NODES,
    *conditioning.NODES,
    *inpainting.NODES,
    *motion.NODES,
    *windows.NODES,
    *sampling.NODES,
    *continuation.NODES,
    *decoding.NODES,
    *video.NODES,
    *inspection.NODES,
    *downloads.NODES,
)
