"""Frames to a video file, chunk by chunk; the file has its final name only when it is complete and proven."""

import math
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from torch import Tensor

from . import commands
from .encoder import Encoder, run_encoder
from .encoding import Encoding
from .errors import FULL, SHORT, DiskFull, VideoError
from .formats import KEEPS_ALPHA
from .metadata import Notes, attach, ffmetadata, left_out_text, lost_in, storable
from .pixels import Audio, to_pixels, with_alpha, write_samples
from .readback import inspect, verify
from .room import Usage, free_bytes, on_disk
from .workspace import Workspace

PATIENCE = 600.0  # seconds that the encoder may stand still


@dataclass(frozen=True)
class Job:
    """Everything a VideoWriter is told besides the frames."""

    folder: Path
    name: str  # the file becomes name_counter_suffix
    encoding: Encoding
    counter: int = 1
    audio: Audio | None = None
    trim_to_audio: bool = False
    notes: Notes = Notes({}, {})  # to keep in the file
    num_frames: int | None = None  # that will be written, when known: for the text of a full disk
    check: Callable[[], None] = lambda: None  # asked while waiting; may raise to interrupt
    patience: float = PATIENCE


class VideoWriter:
    """Writes frames of one clip; leave the `with` block to finish, leave it by an exception to drop all.

    Memory does not grow with the clip: frames go to the encoder one by one, and a clip that must be
    replayed (pingpong, repeats) is kept raw in a nameless file on disk. After the block `path` is the
    finished file, `num_frames` what is in it and `said` what a user should know of it.
    """

    def __init__(self, job: Job):
        self.job, self.encoding = job, job.encoding
        self.path = Path()
        self.num_frames = 0
        self._notes = storable(job.notes, job.encoding.format)
        self._arrived = 0  # frames
        self._size: tuple[int, int] | None = None  # (width, height)
        self._alpha_dropped = self._transparent = False
        self._limit: int | None = None
        self._replay: IO[bytes] | None = None
        self._encoder: Encoder | None = None
        self._stack = ExitStack()
        self._work = Workspace(job.folder)
        self._refuse()

    def _refuse(self) -> None:
        job, form = self.job, self.encoding.format
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

    def write(self, frames_fhwc: Tensor) -> None:
        """Append frames: (f, h, w, 3 or 4), floats in 0..1 (overshoot is clamped) or uint8.

        Alpha, the fourth channel, is kept where the encoding keeps it and dropped where it does not.
        Raises VideoError for another shape or size, a size that the format cannot hold, values that are
        not finite (naming the frame), a dead encoder or a full disk.
        """
        self._work.check_there()
        self._check_frames(frames_fhwc)
        self._alpha_dropped |= frames_fhwc.shape[-1] == 4 and not self.encoding.alpha
        for frame_hwc in with_alpha(frames_fhwc, self.encoding.alpha):
            self.job.check()
            pixels = to_pixels(frame_hwc, self._arrived, self.encoding.deep)
            self._arrived += 1
            self._guard(lambda pixels=pixels: self._put(pixels))

    def _check_frames(self, frames_fhwc: Tensor) -> None:
        if frames_fhwc.ndim != 4 or frames_fhwc.shape[-1] not in (3, 4):
            raise VideoError(
                f"Frames must have the shape (frames, height, width, 3 or 4): got {tuple(frames_fhwc.shape)}. "
                "Convert grey pictures to RGB first."
            )
        size = (frames_fhwc.shape[2], frames_fhwc.shape[1])
        if self._size is None:
            self._guard(lambda: self._open(*size))
        elif size != self._size:
            raise VideoError(f"All frames must be {self._size[0]}x{self._size[1]}: got {size[0]}x{size[1]}.")

    def _open(self, width: int, height: int) -> None:
        """Start the encoder for frames of this size."""
        problem = self.encoding.format.size_problem(self.encoding.pix_fmt, width, height)
        if problem:
            raise VideoError(problem)
        self._size = (width, height)
        if self.encoding.pingpong or (self.encoding.loop_count and not self.encoding.format.loops):
            self._replay = tempfile.TemporaryFile(dir=self._work.path)
            self._stack.callback(drop, self._replay)
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
        if not self._notes.texts or self.encoding.format.tags not in ("mp4", "matroska"):
            return None
        tags = self._work.file("tags.txt")
        tags.write_text(ffmetadata(self._notes.texts), encoding="utf-8", newline="\n")
        return tags

    def _put(self, pixels: np.ndarray) -> None:
        """Give one frame to the encoder, and to the replay file when there is one."""
        if self.encoding.alpha and not self._transparent and not self._is_full:
            self._transparent = bool((pixels[..., 3] < np.iinfo(pixels.dtype).max).any())
        if self._replay is not None:
            self._replay.write(pixels.data)
        self._feed(pixels.data)

    @property
    def _is_full(self) -> bool:
        """Whether the clip has reached the end of its sound."""
        return self._limit is not None and self.num_frames >= self._limit

    def _feed(self, data: memoryview | bytes) -> None:
        if self._is_full:
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
        attach(made, self.encoding.format, self._notes.texts, self._work.file("tagged"))
        self._verify(made)
        self.path = self._work.publish(made, self.job.name, self.job.counter, self.encoding.format.suffix)

    def _play_again(self) -> None:
        """Feed the way back of a pingpong, then the repeats."""
        if self._replay is None:
            return
        width, height = self._size or (0, 0)
        frame_bytes = self.encoding.frame_bytes(width, height)
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
        verify(found, self.encoding, self.num_frames, *(self._size or (0, 0)), sound, self._transparent)
        lost = lost_in(made, self.encoding.format, self._notes.texts)
        self._notes = Notes(self._notes.texts, {**self._notes.left_out, **lost})

    @property
    def said(self) -> list[str]:
        """What the file does not keep of what was given, and why a browser may not show it, in sentences."""
        form = self.encoding.format
        notes = [left_out_text(self._notes.left_out)] if self._notes.left_out else []
        alpha = f"The alpha of the frames was dropped: {form.name} as chosen keeps none. To keep it choose {KEEPS_ALPHA}."
        return [*notes, *([alpha] if self._alpha_dropped else []), *([form.unseen] if form.unseen else [])]

    def _guard(self, step: Callable[[], None]) -> None:
        """Run a step that reads or writes files; what the system refuses becomes an error that helps."""
        try:
            step()
        except (OSError, VideoError) as error:
            self._work.check_there()
            cause = error if isinstance(error, OSError) else error.__cause__
            code = cause.errno if isinstance(cause, OSError) else None
            if isinstance(error, DiskFull) or code in FULL:
                raise DiskFull(self._usage().text()) from error
            if isinstance(cause, OSError) and (cause is error or code in SHORT):
                raise self._work.refusal(cause) from error
            raise

    def _usage(self) -> Usage:
        """What lies on the disk of this clip."""
        return Usage(
            free=free_bytes(self.job.folder),
            made=self._work.size(),
            raw=on_disk(os.fstat(self._replay.fileno())) if self._replay is not None else 0,
            arrived=self._arrived,
            arriving=self.job.num_frames,
            encoded=self.num_frames,
            planned=self._planned_frames(),
        )

    def _planned_frames(self) -> int | None:
        """How many frames the file will have, when it is known how many arrive."""
        arriving = self.job.num_frames
        if arriving is None:
            return None
        way_back = max(0, arriving - 2) if self.encoding.pingpong else 0
        repeats = 0 if self.encoding.format.loops else self.encoding.loop_count
        planned = (arriving + way_back) * (1 + repeats)
        return planned if self._limit is None else min(planned, self._limit)


def drop(stream: IO[bytes]) -> None:
    """Close a file that nobody wants any more; what it could not write does not matter."""
    with suppress(OSError):
        stream.close()


def assert_open(encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise RuntimeError("The encoder starts with the first frame.")
    return encoder


def write_clip(
    job: Job, chunks: Iterable[Tensor], advance: Callable[[int], None] = lambda frames: None
) -> VideoWriter:
    """Write frames (f, h, w, 3) as they arrive and finish the file; `advance` gets the number of frames of each chunk."""
    with VideoWriter(job) as writer:
        for frames in chunks:
            writer.write(frames)
            advance(len(frames))
    return writer
