"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import conditioning, decoding, image_conditioning, inspection, loaders, sampling, video

NODES = (
    *loaders.NODES,
    *conditioning.NODES,
    *image_conditioning.NODES,
    *sampling.NODES,
    *decoding.NODES,
    *video.NODES,
    *inspection.NODES,
)
