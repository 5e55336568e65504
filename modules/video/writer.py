"""Frames to a video file, chunk by chunk; the file has its final name only when it is complete and proven."""

import errno
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from torch import Tensor

from . import commands
from .encoder import Encoder, run_encoder
from .encoding import Encoding
from .metadata import attach, check_metadata, ffmetadata, verify_metadata
from .pixels import Audio, to_pixels, write_samples
from .readback import inspect, verify
from .trouble import DiskFull, VideoError
from .workspace import Workspace, free_bytes

PATIENCE = 600.0  # seconds that the encoder may stand still
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Job:
    """Everything a VideoWriter is told besides the frames."""

    folder: Path
    name: str  # the file becomes name_counter_suffix
    encoding: Encoding
    counter: int = 1
    audio: Audio | None = None
    trim_to_audio: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    num_frames: int | None = None  # that will be written, when known: for the text of a full disk
    check: Callable[[], None] = lambda: None  # asked while waiting; may raise to interrupt
    patience: float = PATIENCE


class VideoWriter:
    """Writes frames of one clip; leave the `with` block to finish, leave it by an exception to drop all.

    Memory does not grow with the clip: frames go to the encoder one by one, and a clip that must be
    replayed (pingpong, repeats) is kept raw in a nameless file on disk. After the block `path` is the
    finished file and `num_frames` what is in it.
    """

    def __init__(self, job: Job):
        self.job, self.encoding = job, job.encoding
        self.path = Path()
        self.num_frames = 0
        self._arrived = 0  # frames
        self._size: tuple[int, int] | None = None  # (width, height)
        self._limit: int | None = None
        self._replay: IO[bytes] | None = None
        self._encoder: Encoder | None = None
        self._stack = ExitStack()
        self._work = Workspace(job.folder)
        self._refuse()

    def _refuse(self) -> None:
        job, form = self.job, self.encoding.format
        check_metadata(job.metadata)
        if job.audio is not None:
            form.check_sound()
        if job.trim_to_audio and job.audio is not None:
            self._limit = math.ceil(job.audio.seconds * self.encoding.frame_rate)

    def __enter__(self) -> "VideoWriter":
        self._stack.enter_context(self._work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        with self._stack:
            if error is None:
                self._guard(self._finish)
            elif isinstance(error, OSError) and error.errno in FULL:
                raise self._disk_full() from error

    def write(self, frames_fhwc: Tensor) -> None:
        """Append frames: (f, h, w, 3), floats in 0..1 (overshoot is clamped) or uint8.

        Raises VideoError for another shape or size, a size that the format cannot hold, values that are
        not finite (naming the frame), a dead encoder or a full disk.
        """
        self._check_frames(frames_fhwc)
        for frame_hwc in frames_fhwc:
            self.job.check()
            pixels = to_pixels(frame_hwc, self._arrived, self.encoding.deep)
            self._arrived += 1
            self._guard(lambda pixels=pixels: self._put(pixels))

    def _check_frames(self, frames_fhwc: Tensor) -> None:
        if frames_fhwc.ndim != 4 or frames_fhwc.shape[-1] != 3:
            raise VideoError(
                f"Frames must have the shape (frames, height, width, 3): got {tuple(frames_fhwc.shape)}. "
                "Remove an alpha channel, or convert grey pictures to RGB first."
            )
        size = (frames_fhwc.shape[2], frames_fhwc.shape[1])
        if self._size is None:
            self._open(*size)
        elif size != self._size:
            raise VideoError(f"All frames must be {self._size[0]}x{self._size[1]}: got {size[0]}x{size[1]}.")

    def _open(self, width: int, height: int) -> None:
        """Start the encoder for frames of this size."""
        problem = self.encoding.format.size_problem(self.encoding.pix_fmt, width, height)
        if problem:
            raise VideoError(problem)
        self._size = (width, height)
        if self.encoding.pingpong or (self.encoding.loop_count and not self.encoding.format.loops):
            self._replay = self._stack.enter_context(tempfile.TemporaryFile(dir=self._work.path))
        argv = self._first_command(width, height)
        encoder = Encoder(argv, self.job.patience, self.job.check, str(self._work.path))
        self._encoder = self._stack.enter_context(encoder)

    def _first_command(self, width: int, height: int) -> list[str]:
        if self.encoding.format.muxer == "gif":
            clip, palette = self._work.file("clip.mkv"), self._work.file("palette.png")
            return commands.gather_palette(self.encoding, width, height, clip, palette)
        return commands.encode(self.encoding, width, height, self._tags(), self._picture)

    @property
    def _picture(self) -> Path:
        return self._work.file("picture" + self.encoding.format.suffix)

    def _tags(self) -> Path | None:
        """The ffmetadata file, for formats that ffmpeg writes it into."""
        if not self.job.metadata or self.encoding.format.tags not in ("mp4", "matroska"):
            return None
        tags = self._work.file("tags.txt")
        tags.write_text(ffmetadata(self.job.metadata), encoding="utf-8", newline="\n")
        return tags

    def _put(self, pixels: np.ndarray) -> None:
        """Give one frame to the encoder, and to the replay file when there is one."""
        if self._replay is not None:
            self._replay.write(pixels.data)
        self._feed(pixels.data)

    def _feed(self, data: memoryview | bytes) -> None:
        if self._limit is not None and self.num_frames >= self._limit:
            return
        assert_open(self._encoder).feed(data)
        self.num_frames += 1

    def _finish(self) -> None:
        if self._size is None:
            raise VideoError(
                "No frames arrived: a video needs at least one. Check what is connected to images."
            )
        self._play_again()
        assert_open(self._encoder).finish()
        made = self._add_audio(self._make_gif(self._picture))
        attach(made, self.encoding.format, self.job.metadata, self._work.file("tagged"))
        self._verify(made)
        self.path = self._work.publish(made, self.job.name, self.job.counter, self.encoding.format.suffix)

    def _play_again(self) -> None:
        """Feed the way back of a pingpong, then the repeats."""
        if self._replay is None:
            return
        width, height = self._size or (0, 0)
        frame_bytes = width * height * 3 * (2 if self.encoding.deep else 1)
        num_kept = self._replay.tell() // frame_bytes
        way_back = list(range(num_kept - 2, 0, -1)) if self.encoding.pingpong else []
        repeats = 0 if self.encoding.format.loops else self.encoding.loop_count
        for index in way_back + [*range(num_kept), *way_back] * repeats:
            self.job.check()
            self._replay.seek(index * frame_bytes)
            self._feed(self._replay.read(frame_bytes))

    def _make_gif(self, picture: Path) -> Path:
        if self.encoding.format.muxer == "gif":
            clip, palette = self._work.file("clip.mkv"), self._work.file("palette.png")
            self._run(commands.apply_palette(self.encoding, clip, palette, picture))
        return picture

    def _add_audio(self, picture: Path) -> Path:
        """The clip with its sound, cut or filled with silence to the clip's length."""
        audio = self.job.audio
        if audio is None:
            return picture
        raw, joined = self._work.file("audio.f32"), self._work.file("joined" + picture.suffix)
        samples = math.ceil(self._seconds * audio.sample_rate)
        write_samples(raw, audio.waveform[:, :samples], samples)
        shape = (audio.waveform.shape[0], audio.sample_rate)
        self._run(commands.add_audio(self.encoding, picture, raw, *shape, self._tags(), joined))
        return joined

    @property
    def _seconds(self) -> Fraction:
        return self.num_frames / self.encoding.frame_rate

    def _run(self, argv: list[str]) -> None:
        run_encoder(argv, self.job.patience, self.job.check, str(self._work.path))

    def _verify(self, made: Path) -> None:
        found = inspect(made, self.job.check)
        sound = self._seconds if self.job.audio is not None else Fraction(0)
        verify(found, self.encoding, self.num_frames, *(self._size or (0, 0)), sound)
        verify_metadata(made, self.encoding.format, self.job.metadata)

    def _guard(self, step: Callable[[], None]) -> None:
        """Run a step that writes; a full disk becomes an error that says how full."""
        try:
            step()
        except OSError as error:
            if error.errno in FULL:
                raise self._disk_full() from error
            raise VideoError(
                f"The video could not be written: {error.strerror}. Check the output folder."
            ) from error
        except DiskFull as error:
            raise self._disk_full() from error

    def _disk_full(self) -> DiskFull:
        used, done, total = self._work.size(), max(1, self.num_frames), self.job.num_frames
        free = free_bytes(self.job.folder) + used
        need = f"about {megabytes(used * total / done)}" if total else f"more than {megabytes(used)}"
        return DiskFull(
            f"The disk is full: {megabytes(free)} were free for this clip, {need} are needed "
            f"({self.num_frames} frames took {megabytes(used)}). Free some space, choose another output folder, "
            "or a format or crf that makes smaller files. Nothing was left behind."
        )


def assert_open(encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise RuntimeError("The encoder starts with the first frame.")
    return encoder


def megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.1f} MB"


def write_clip(
    job: Job, chunks: Iterable[Tensor], advance: Callable[[int], None] = lambda frames: None
) -> VideoWriter:
    """Write frames (f, h, w, 3) as they arrive and finish the file; `advance` hears of every chunk."""
    with VideoWriter(job) as writer:
        for frames in chunks:
            writer.write(frames)
            advance(len(frames))
    return writer
