"""Finished videos for the host: widgets that choose a format, the workflow to keep inside, the result."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comfy.cli_args import args

from . import values
from .api import io, ui


def format_input(formats: Iterable[Any]) -> io.DynamicCombo.Input:
    """A DynamicCombo of formats (records with `name` and `options`), each with its own bounded options."""
    choices = [io.DynamicCombo.Option(entry.name, [_option(o) for o in entry.options]) for entry in formats]
    tooltip = "Container and encoder. h264-mp4 plays everywhere; ffv1-mkv loses nothing."
    return io.DynamicCombo.Input("format", options=choices, tooltip=tooltip)


def _option(option: Any) -> io.Input:
    """The widget for an option: a list of words, a bounded number, or a switch."""
    if hasattr(option, "words"):
        return io.Combo.Input(
            option.name, options=list(option.words), default=option.default, tooltip=option.tooltip
        )
    if hasattr(option, "high"):
        return io.Int.Input(
            option.name, default=option.default, min=option.low, max=option.high, tooltip=option.tooltip
        )
    return io.Boolean.Input(option.name, default=option.default, tooltip=option.tooltip)


def workflow_of(node: type[io.ComfyNode]) -> dict[str, str]:
    """Prompt and workflow of the running node as JSON texts, for the file; empty with --disable-metadata."""
    if args.disable_metadata:
        return {}
    prompt, extra = node.hidden.prompt, node.hidden.extra_pnginfo or {}
    kept = {"prompt": prompt, **extra} if prompt is not None else dict(extra)
    return {key: json.dumps(value) for key, value in kept.items()}


def saved_video(path: Path, subfolder: str, temporary: bool, format_name: str, rate: float) -> io.NodeOutput:
    """VIDEO and file name, with the result keys of the host's SaveVideo and of VideoHelperSuite's clients."""
    kind = io.FolderType.temp if temporary else io.FolderType.output
    item = ui.SavedResult(path.name, subfolder, kind)
    shown = ui.PreviewVideo([item]).as_dict()
    shown["gifs"] = [{**item, "format": format_name, "frame_rate": rate}]
    name = f"{subfolder}/{path.name}" if subfolder else path.name
    return io.NodeOutput(values.video_from_file(path), name, ui=shown)
