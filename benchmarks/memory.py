"""Peak memory of tensors, counted storage by storage: no noise, and at full size without any memory.

On the meta device, which stands for an accelerator, and under `FakeTensorMode` nothing is computed or allocated,
so a model of many gigabytes is measured in seconds:

    model, x = build(device="meta")
    with torch.inference_mode():
        peak = peak_live_bytes(lambda: model(x))
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorage(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, from its birth to its release.

    Workspaces inside a kernel are not seen; what existed before and the views of it are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.live = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._given: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._release()
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made:
                self._given[storage._cdata] = StorageWeakRef(storage)
        is_attention = func is torch.ops.aten.scaled_dot_product_attention.default
        if is_attention and args[0].is_meta:
            result = _attended(*args[:3])
        else:
            result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._count(storage)
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._given and storage._cdata not in self._made:
            self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.live += storage.nbytes()

    def _release(self) -> None:
        for address in [address for address, (storage, _) in self._made.items() if storage.expired()]:
            self.live -= self._made.pop(address)[1]
        # What was given needs no sweep: a weak reference keeps an address from being used again.


def _attended(q_bhld: Tensor, _: Tensor, v_bhld: Tensor) -> Tensor:
    """What a kernel of attention answers: token after token in memory, where the meta device says head after head.

    A network that goes on with tokens copies the one and only views the other.
    """
    b, heads, tokens, _ = q_bhld.shape
    return q_bhld.new_empty(b, tokens, heads, v_bhld.shape[-1]).transpose(1, 2)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def peak_live_bytes(run: Callable[[], Any]) -> int:
    """Most bytes of tensors alive at once that `run` made; weights and inputs made earlier do not count."""
    with LiveStorage() as storages:
        run()
    return storages.peak
