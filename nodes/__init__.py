"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import (
    conditioning,
    continuation,
    decoding,
    inpainting,
    inspection,
    latents,
    loaders,
    lora,
    motion,
    sampling,
    video,
    windows,
)

NODES = (
    *loaders.NODES,
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
)
