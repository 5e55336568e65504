"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import conditioning, inspection, loaders, sampling

NODES = (*loaders.NODES, *conditioning.NODES, *sampling.NODES, *inspection.NODES)
