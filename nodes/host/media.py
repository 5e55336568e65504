"""Finished videos for the host: widgets that choose a format, the workflow to keep inside, the result."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from comfy.cli_args import args

from . import values
from .api import io, ui


def clip_inputs(formats: Iterable[Any]) -> list[io.Input]:
    """What every node that writes a clip asks: rate, repeats, name and format."""
    return [
        io.Float.Input(
            "frame_rate",
            default=8.0,
            min=0.1,
            max=240.0,
            step=0.001,  # the page rounds to it: 23.976 would become 23.98
            tooltip="Frames per second. CogVideoX: 8, 1.5: 16. A gif plays at most 50.",
        ),
        io.Int.Input(
            "loop_count",
            default=0,
            min=0,
            max=100,
            tooltip="Extra repeats of the clip. At 0, gif and webp play forever and videos play once.",
        ),
        io.String.Input(
            "filename_prefix",
            default="video/Kinetograph",
            tooltip="Name of the file, with folders below the output folder. %date:yyyy-MM-dd%, %Node.widget% "
            "(a node's title and a widget of it), %year%, %month%, %day%, %width% and %height% are filled in.",
        ),
        format_input(formats),
    ]


def file_inputs() -> list[io.Input]:
    """What every node that writes a clip asks of the file: where, with which notes and sound."""
    return [
        io.Boolean.Input(
            "save_output",
            default=True,
            tooltip="Keep the file. Off: a preview in the temporary folder.",
        ),
        io.Boolean.Input(
            "save_metadata",
            default=True,
            tooltip="Store the workflow in the file; dropping the file into ComfyUI brings it back.",
        ),
        io.Boolean.Input(
            "trim_to_audio",
            default=False,
            tooltip="End the clip where the sound ends, if that is earlier.",
        ),
        io.Audio.Input(
            "audio", optional=True, tooltip="Sound, cut or filled with silence to the clip's length."
        ),
    ]


def file_outputs() -> list[io.Output]:
    """What every node that writes a clip gives."""
    return [
        io.Video.Output("video", tooltip="The file as a VIDEO. The host cannot decode webp files again."),
        io.String.Output("filename", tooltip="Name of the file below its folder."),
    ]


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
    return io.NodeOutput(values.video_from_file(path), name, ui=shown)
