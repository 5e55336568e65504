"""Progress, previews and interruption, through the host."""

from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_execution.utils import get_executing_context

from .api import ui


class Progress:
    """A progress bar on the running node; every move of it also lets the user's Cancel through."""

    def __init__(self, total: int):
        self.done = 0
        self.total = max(1, total)
        self._bar = comfy.utils.ProgressBar(self.total)

    def advance(self, count: int = 1, preview: Any = None) -> None:
        """Move by `count`; `preview` is a PIL image. Raises the host's interruption when Cancel was pressed."""
        check_interrupted()
        self.done += count
        shown = None if preview is None else ("JPEG", preview, 512)
        self._bar.update_absolute(min(self.done, self.total), self.total, shown)


def tell(text: str) -> None:
    """Show a line of text on the running node."""
    running = get_executing_context()
    if running is None:
        return
    from server import PromptServer  # there where a queue runs

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_progress_text(text, running.node_id)


def still(picture: Any) -> dict[str, Any]:
    """What a node's result has for the page to show a PIL image on it, from the temporary folder."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).float() / 255
    return ui.PreviewImage(pixels[None]).as_dict()


def steps(total: int) -> Progress:
    """A progress bar over `total` steps, frames or chunks."""
    return Progress(total)


def check_interrupted() -> None:
    """Raise the host's interruption when Cancel was pressed (an Exception in 0.16.3, BaseException in 0.30)."""
    comfy.model_management.throw_exception_if_processing_interrupted()
