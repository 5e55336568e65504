"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import conditioning, decoding, image_conditioning, inspection, loaders, motion, sampling, video

NODES = (
    *loaders.NODES,
    *conditioning.NODES,
    *image_conditioning.NODES,
    *motion.NODES,
    *sampling.NODES,
    *decoding.NODES,
    *video.NODES,
    *inspection.NODES,
)
