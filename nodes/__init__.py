"""The nodes of this pack, in the one list that ComfyUI, the README and the tests read."""

from . import conditioning, loaders, sampling

NODES = (*loaders.NODES, *conditioning.NODES, *sampling.NODES)
