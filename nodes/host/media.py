"""Finished videos for the host: the workflow to keep inside, the result."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfy.cli_args import args

from .api import InputImpl, io, ui


def workflow_of(node: type[io.ComfyNode], wanted: bool) -> tuple[Any, Any]:
    """Prompt and whatever came with it (the workflow, as a rule); nothing with --disable-metadata."""
    if args.disable_metadata or not wanted:
        return None, None
    return _as_posted(node.hidden.prompt), node.hidden.extra_pnginfo


def _as_posted(prompt: Any) -> Any:
    """A prompt without what the host writes into it: fingerprints of files, which a prompt posted again would keep.

    They would hide that a file has changed since, and tell whoever gets the video about this computer's folders.
    """
    if prompt is None:
        return None
    return {key: {k: v for k, v in node.items() if k != "is_changed"} for key, node in prompt.items()}


def saved_video(
    path: Path, subfolder: str, temporary: bool, format_name: str, rate: float, said: Sequence[str]
) -> io.NodeOutput:
    """VIDEO and file name, with the result keys of the host's SaveVideo and of VideoHelperSuite's clients.

    `said` are sentences about the file; they stand on the node (web/results.js) and in the log.
    """
    kind = io.FolderType.temp if temporary else io.FolderType.output
    item = ui.SavedResult(path.name, subfolder, kind)
    shown = ui.PreviewVideo([item]).as_dict()
    # the page takes all that is animated and no webp or png for a <video>, in which a gif stays dark
    shown["animated"] = (path.suffix != ".gif",)
    shown["gifs"] = [{**item, "format": format_name, "frame_rate": rate}]
    if said:
        shown["text"] = list(said)
        logging.info("%s: %s", path.name, " ".join(said))
    name = f"{subfolder}/{path.name}" if subfolder else path.name
    return io.NodeOutput(InputImpl.VideoFromFile(str(path)), name, ui=shown)
