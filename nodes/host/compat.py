"""Every probe for a host version, each with the version that needs it."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import CallbacksMP


def intermediate_dtype() -> torch.dtype:
    """Dtype of tensors that travel between nodes. 0.30 lets the user choose it, 0.16.3 means float32."""
    choose = getattr(comfy.model_management, "intermediate_dtype", None)
    return choose() if choose else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out. 0.30 knows more kinds of it than 0.16.3 does."""
    probe = getattr(comfy.model_management, "is_oom", None)
    if probe is not None:
        return bool(probe(error))
    return isinstance(error, comfy.model_management.OOM_EXCEPTION)


def put_back_weights(patcher: Any) -> None:
    """Weights that lie copied on the device go back to where they rest; they are copied again when loaded.

    0.30 copies small ones so under dynamic VRAM; 0.16.3 has nothing to put back.
    """
    put_back = getattr(patcher, "restore_loaded_backups", None)
    if put_back is not None:
        put_back()


def on_split(model: Any, key: str, change: Callable[[Any, Any], None]) -> None:
    """Have `change(model, copy)` see each copy of a MODEL that the host makes for another device before a run.

    0.30 splits guidance over devices so; 0.16.3 makes no copies.
    """
    moment = getattr(CallbacksMP, "ON_MATCH_MULTIGPU_CLONES", None)
    if moment is not None:
        model.add_callback_with_key(moment, key, change)
