"""Peak memory of tensors, counted storage by storage: no noise, and at full size without any memory.

Under `FakeTensorMode` nothing is computed or allocated, so a model of many gigabytes is measured in seconds:

    with FakeTensorMode():
        model, x = build()
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


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def peak_live_bytes(run: Callable[[], Any]) -> int:
    """Most bytes of tensors alive at once that `run` made; weights and inputs made earlier do not count."""
    with LiveStorage() as storages:
        run()
    return storages.peak
