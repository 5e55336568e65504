"""Frames to a video file that was read back, and what the host shows of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from ...modules.videofile.encoding import Encoding
from ...modules.videofile.errors import in_our_words
from ...modules.videofile.metadata import read_notes
from ...modules.videofile.naming import fill_prefix
from ...modules.videofile.request import check_request, read_audio, read_encoding, request_problem
from ...modules.videofile.writer import Job, VideoWriter, write_clip
from ..host import files, media, progress, results
from ..host.api import io
from .decoding import open_clips

# frames between two looks at progress and Cancel
CHUNK = 8


@dataclass(frozen=True)
class ClipFile:
    """The widgets of every node that writes a clip."""

    frame_rate: float
    loop_count: int
    filename_prefix: str
    format: dict[str, Any]
    save_output: bool
    save_metadata: bool
    trim_to_audio: bool
    audio: Any = None
    pingpong: bool = False

    @property
    def encoding(self) -> Encoding:
        """How the frames become a file."""
        return read_encoding(self.format, self.frame_rate, self.loop_count, self.pingpong)


def post_problem(format: Any, frame_rate: Any, filename_prefix: Any) -> str | None:  # noqa: A002
    """Why a clip cannot be encoded or named so, as far as a post tells; or None."""
    return request_problem(format, frame_rate, filename_prefix, files.output_directory())


def check_before_frames(inputs: dict[str, Any], prompt: Any) -> None:
    """ValueError for a name, format or sound that fails, before anything is computed for the clip."""
    chosen, sound = inputs["format"]["format"][0], read_audio(inputs.get("audio"))
    check_request(chosen, sound, inputs["filename_prefix"], prompt, files.output_directory())


def check_file(node: Any, clip_file: ClipFile) -> None:
    """VideoError where this computer cannot encode the format, or the name tells of what is not in the prompt."""
    chosen, root = clip_file.format["format"], files.output_directory()
    check_request(chosen, read_audio(clip_file.audio), clip_file.filename_prefix, node.hidden.prompt, root)


def save_frames(node: Any, clip_file: ClipFile, images: Tensor) -> Any:
    """Write the frames (f, h, w, c) of an IMAGE; what the host takes as a node's result."""
    size, advance = (images.shape[2], images.shape[1]), progress.steps(len(images)).advance
    writer, place = _write(node, clip_file, images.split(CHUNK), size, len(images), advance)
    return _result(clip_file, writer, place, writer.said)


def save_latent(node: Any, clip_file: ClipFile, vae: Any, latent: dict[str, Any], title: str) -> Any:
    """Decode a LATENT straight into the encoder; the result ends with what was assumed about its frames."""
    clips = open_clips(vae, latent, title)
    writer, place = _write(node, clip_file, clips.frames(), clips.size)
    result = _result(clip_file, writer, place, [note for note in (clips.note, *writer.said) if note])
    return io.NodeOutput(*result.args, clips.note, ui=result.ui)


def save_stream(
    node: Any,
    clip_file: ClipFile,
    frames: Iterable[Tensor],
    size: tuple[int, int],
    num_frames: int,
    notes: Callable[[], list[str]],
) -> Any:
    """Write frames (f, h, w, 3) as they come; the result ends with what `notes` say once all are there."""
    writer, place = _write(node, clip_file, frames, size, num_frames)
    said = notes()
    result = _result(clip_file, writer, place, [*said, *writer.said])
    return io.NodeOutput(result.args[0], " ".join(said), ui=result.ui)


def place_of(node: Any, clip_file: ClipFile, size: tuple[int, int]) -> tuple[Path, str]:
    """(folder, name) of a clip that will be written, before its counter."""
    return _save_path(node, clip_file, size)[:2]


def _save_path(node: Any, clip_file: ClipFile, size: tuple[int, int]) -> tuple[Path, str, int, str]:
    """(folder, name, counter, folder below the host's) of the next clip of that name."""
    temporary = not clip_file.save_output
    root = files.result_root(temporary)
    prefix = fill_prefix(clip_file.filename_prefix, node.hidden.prompt, datetime.now(), root)
    with in_our_words():
        return files.save_path(prefix, *size, temporary)


def _write(
    node: Any,
    clip_file: ClipFile,
    frames: Iterable[Tensor],
    size: tuple[int, int],
    num_frames: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[VideoWriter, str]:
    """(the writer of a finished file, the folder below the host's that it lies in)."""
    encoding, sound = clip_file.encoding, read_audio(clip_file.audio)
    folder, name, counter, subfolder = _save_path(node, clip_file, size)
    notes = read_notes(*media.workflow_of(node, clip_file.save_metadata))
    job = Job(
        folder, name, encoding, counter, sound, clip_file.trim_to_audio, notes, num_frames, progress.check_interrupted
    )  # fmt: skip
    writer = write_clip(job, frames, advance)
    results.remember(writer.path)
    return writer, subfolder


def _result(clip_file: ClipFile, writer: VideoWriter, subfolder: str, said: Sequence[str]) -> Any:
    format_name = writer.encoding.format.name
    return media.saved_video(
        writer.path, subfolder, not clip_file.save_output, format_name, clip_file.frame_rate, said
    )
