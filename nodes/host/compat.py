"""Every probe for a host version, each with the version that needs it."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import comfy.context_windows
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


def plain_windows() -> dict[str, bool]:
    """The option by which context windows hold their own frames alone; 0.30 puts the frame before in front of each."""
    handler, option = comfy.context_windows.IndexListContextHandler, "causal_window_fix"
    return {option: False} if option in signature(handler.__init__).parameters else {}


def trim_window(video: Any) -> tuple[float, float]:
    """(start, seconds) to which a VideoFromFile was trimmed, 0 seconds: to its end; 0.16.3 tells nobody of it."""
    tell = getattr(video, "get_active_trim_window", None)
    if tell is not None:
        return tell()
    # its own names for them; without them the whole file counts
    start, seconds = (getattr(video, f"_VideoFromFile__{name}", 0) for name in ("start_time", "duration"))
    if start < 0:
        start = max(0, type(video)(video.get_stream_source()).get_duration() + start)
    return start, seconds
