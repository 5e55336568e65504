"""One run of ffmpeg, watched: it cannot deadlock, hang or outlive us unnoticed."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import imageio_ffmpeg

from .trouble import DiskFull, VideoError

POLL_SECONDS = 0.05
KEPT_LINES, SHOWN_LINES = 60, 4  # of ffmpeg's messages: the cause comes first, then what follows from it
FULL_SIGNS = ("No space left", "Disk quota")
ADVICE = (
    ("nvenc", "This computer cannot encode on the GPU: choose video/h264-mp4."),
    ("CUDA", "This computer cannot encode on the GPU: choose video/h264-mp4."),
    ("Unknown encoder", "This ffmpeg lacks the encoder: reinstall imageio-ffmpeg or choose another format."),
    ("Cannot allocate memory", "Memory ran out: choose a smaller size or another format."),
)
KILLED = "Something ended the encoder, often because memory ran out: choose a smaller size or another format."
GET_FFMPEG = (
    "Run 'pip install imageio-ffmpeg' in ComfyUI's Python, or let the environment variable "
    "IMAGEIO_FFMPEG_EXE name an ffmpeg program."
)
DEFAULT_ADVICE = "Try video/h264-mp4 with its default options; report this text if that fails too."


def ffmpeg_path() -> str:
    """The ffmpeg of imageio-ffmpeg (or of IMAGEIO_FFMPEG_EXE); VideoError says how to get one."""
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"No ffmpeg was found. {GET_FFMPEG}") from error


def start_ffmpeg(argv: Sequence[str]) -> "subprocess.Popen[bytes]":
    """ffmpeg with pipes for input and messages; VideoError when it cannot be started."""
    program = ffmpeg_path()
    try:
        return subprocess.Popen(
            [program, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "SVT_LOG": "1"},  # the AV1 encoder otherwise fills stderr with its settings
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise VideoError(f"ffmpeg cannot be started: {error.strerror}. {GET_FFMPEG}") from error


class Encoder:
    """An ffmpeg process that eats bytes on standard input.

    Its messages are drained in a thread, a write or a finish that stands still for `patience` seconds
    ends it, and `check` (which may raise) is asked while waiting.
    """

    def __init__(self, argv: Sequence[str], patience: float, check: Callable[[], None], hide: str = ""):
        self._patience, self._check, self._hide = patience, check, hide
        self._stalled = False
        self._said: list[str] = []
        self._process = start_ffmpeg(argv)
        self._drain = threading.Thread(target=self._listen, daemon=True)
        self._drain.start()

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def feed(self, data: memoryview | bytes) -> None:
        """Write raw bytes; VideoError with the encoder's last words when it is gone or stands still."""
        watch = threading.Timer(self._patience, self._give_up)
        watch.start()
        try:
            self._process.stdin.write(data)  # type: ignore[union-attr]
        except OSError as error:  # EPIPE; EINVAL on Windows
            raise self._failure() from error
        finally:
            watch.cancel()
            watch.join()

    def finish(self) -> None:
        """Say that all is written and wait for a good end; VideoError otherwise."""
        deadline = time.monotonic() + self._patience
        try:
            self._process.stdin.close()  # type: ignore[union-attr]
        except OSError as error:
            raise self._failure() from error
        while self._process.poll() is None:
            self._check()
            if time.monotonic() > deadline:
                self._give_up()
            try:
                self._process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        if self._process.returncode:
            raise self._failure()

    def kill(self) -> None:
        """End the process, whatever it is doing, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._drain.join()
        for pipe in (self._process.stdin, self._process.stderr):
            try:
                pipe.close()  # type: ignore[union-attr]
            except OSError:  # bytes that nobody reads any more
                pass

    def _give_up(self) -> None:
        self._stalled = True
        self._process.kill()

    def _listen(self) -> None:
        for line in self._process.stderr:  # type: ignore[union-attr]
            if len(self._said) < KEPT_LINES:
                self._said.append(line.decode(errors="replace").rstrip()[:400])

    def _failure(self) -> VideoError:
        """The error to raise, once the process has ended."""
        try:
            code = self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._give_up()
            code = self._process.wait()
        self._drain.join()
        if self._stalled:
            return VideoError(
                f"ffmpeg stood still for {self._patience:g} seconds and was ended. {DEFAULT_ADVICE}"
            )
        said = " | ".join(self._said[:SHOWN_LINES]) or "it said nothing"
        said = said.replace(self._hide, "<output folder>") if self._hide else said
        if any(sign in line for sign in FULL_SIGNS for line in self._said):
            return DiskFull(f"The disk is full: {said}. Free some space or choose another output folder.")
        return VideoError(f"ffmpeg ended with exit code {code}: {said}. {self._advice(code)}")

    def _advice(self, code: int) -> str:
        everything = " ".join(self._said)
        known = (text for sign, text in ADVICE if sign in everything)
        return next(known, KILLED if code < 0 else DEFAULT_ADVICE)


def run_encoder(argv: Sequence[str], patience: float, check: Callable[[], None], hide: str = "") -> None:
    """One ffmpeg run without raw input; VideoError when it fails."""
    with Encoder(argv, patience, check, hide) as encoder:
        encoder.finish()
