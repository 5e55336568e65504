"""Save Training Data: lists of clips and captions, as ComfyUI's dataset nodes hand them on, into a data folder."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ...modules.training.cache import digest_of
from ...modules.training.data.formats import VIDEOS
from ...modules.training.data.lists import frames_source
from ...modules.videofile.errors import reason
from ...modules.videofile.request import read_encoding
from ...modules.videofile.writer import Job, write_clip
from ..host import files, progress, results
from ..host.api import io, ui
from ..host.footage import file_of
from .training_runs import name_problem

NODE = "Save Training Data"
# without loss, so that a training sees what the lists held
LOSSLESS = {"format": "video/ffv1-mkv", "pix_fmt": "bgr0"}
CHUNK = 16
# what a folder was made of, in a hidden file
MARK = ".kinetograph_lists"
MOST = 1000


@dataclass(frozen=True)
class Entry:
    """One clip or picture with its caption."""

    caption: str
    # of a file that is copied as it is; empty where frames are written
    path: str = ""
    frames: Tensor | None = None
    rate: float = 0.0

    def digest(self) -> str:
        """Of the bytes or of the frames, and of the caption."""
        held = (
            digest_of(Path(self.path))
            if self.frames is None
            else frames_source(self.frames, self.rate).digest
        )
        return f"{held} {self.caption!r}"


def save(
    clips: Sequence[Any], captions: Sequence[str], names: Sequence[str], rates: Sequence[float]
) -> io.NodeOutput:
    """(the folder's name below the input folder, report). ValueError for lists that do not fit, or a full disk.

    The same lists under the same name give the same folder; other lists get a number behind the name.
    """
    if (problem := name_problem(names[0])) is not None:
        raise ValueError(problem.replace("output/training", "ComfyUI's input folder"))
    if len(clips) != len(captions):
        raise ValueError(
            f"{NODE} takes one caption for each clip: got {len(clips)} clips and {len(captions)} captions."
        )
    entries = [_entry(*pair, rates[0]) for pair in zip(clips, captions, strict=True)]
    mark = hashlib.blake2b(
        "\n".join(entry.digest() for entry in entries).encode(), digest_size=16
    ).hexdigest()
    folder, is_there = _place(names[0], mark)
    if not is_there:
        _write(folder, entries, mark)
    results.remember(folder / MARK)
    silent = sum(not entry.caption.strip() for entry in entries)
    said = f"{len(entries)} clips and pictures with captions in input/{folder.name}" + (
        ", as before." if is_there else "."
    )
    said += f" {silent} captions are empty." if silent else ""
    progress.tell(said)
    return io.NodeOutput(folder.name, said, ui=ui.PreviewText(said))


def _entry(clip: Any, caption: Any, rate: float) -> Entry:
    if not isinstance(caption, str):
        raise ValueError(f"captions must be texts: got {type(caption).__name__}.")
    if isinstance(clip, Tensor) and clip.ndim == 4:
        return Entry(caption, frames=clip, rate=rate)
    if not hasattr(clip, "get_components"):
        raise ValueError(f"clips must be IMAGE or VIDEO: got {type(clip).__name__}.")
    path, start, seconds = file_of(clip) or ("", 0.0, 0.0)
    whole = isinstance(path, str) and Path(path).suffix.lower() in VIDEOS and not (start or seconds)
    if whole:
        return Entry(caption, str(path))
    parts = clip.get_components()
    return Entry(caption, frames=parts.images, rate=float(parts.frame_rate))


def _place(name: str, mark: str) -> tuple[Path, bool]:
    """(the folder for these lists, whether it is there already)."""
    root = files.input_directory()
    for folder in (root / (name if number == 1 else f"{name}-{number}") for number in range(1, MOST)):
        if not folder.exists():
            return folder, False
        kept = folder / MARK
        if kept.is_file() and kept.read_text(encoding="utf-8") == mark:
            return folder, True
    raise ValueError(f"{name} has {MOST} numbers already: choose another name.")


def _write(folder: Path, entries: Iterable[Entry], mark: str) -> None:
    """All of a folder or nothing of it."""
    entries, beside = list(entries), folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    bar = progress.steps(len(entries))
    try:
        beside.mkdir(parents=True)
        for number, entry in enumerate(entries):
            file = _write_entry(beside, f"{number:05d}", entry)
            if entry.caption.strip():
                file.with_suffix(".txt").write_text(entry.caption, encoding="utf-8")
            bar.advance()
        (beside / MARK).write_text(mark, encoding="utf-8")
        beside.rename(folder)
    except OSError as error:
        raise ValueError(f"The data set {folder.name} could not be written: {reason(error)}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_entry(folder: Path, name: str, entry: Entry) -> Path:
    """The file of an entry: copied, a PNG of one frame, or a clip without loss."""
    if entry.frames is None:
        return Path(shutil.copyfile(entry.path, folder / f"{name}{Path(entry.path).suffix}"))
    if len(entry.frames) == 1:
        pixels = (entry.frames[0, ..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
        return folder / f"{name}.png"
    job = Job(folder, name, read_encoding(LOSSLESS, entry.rate), check=progress.check_interrupted)
    return write_clip(job, _chunks(entry.frames)).path


def _chunks(frames_fhwc: Tensor) -> Iterator[Tensor]:
    yield from (chunk[..., :3] for chunk in frames_fhwc.split(CHUNK))
