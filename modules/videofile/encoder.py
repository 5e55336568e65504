"""One run of ffmpeg, watched: it cannot deadlock, hang or outlive us unnoticed."""

import atexit
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

import imageio_ffmpeg

from .errors import SHORT, TOO_MANY, DiskFull, Shortage, VideoError, reason

POLL_SECONDS = 0.05
END_SECONDS, PIPE_SECONDS = 5.0, 1.0  # to wait for a killed process, and for what may still hold its pipes
READ_BYTES = 1 << 16
# Of ffmpeg's messages: the cause comes first, then what follows from it.
KEPT_BYTES, KEPT_LINES, LINE_LETTERS, SHOWN_LINES = 1 << 15, 60, 400, 4
FULL_SIGNS = ("No space left", "Disk quota")
MEMORY_SIGN = "Cannot allocate memory"
ADVICE = (
    ("nvenc", "This computer cannot encode on the GPU: choose video/h264-mp4."),
    ("CUDA", "This computer cannot encode on the GPU: choose video/h264-mp4."),
    ("Unknown encoder", "This ffmpeg lacks the encoder: reinstall imageio-ffmpeg or choose another format."),
    ("Too many open files", f"{TOO_MANY.capitalize()}."),
    ("Read-only file system", "The disk of the output folder is read-only: choose another output folder."),
    ("Permission denied", "ComfyUI may not write there: choose another output folder."),
    (MEMORY_SIGN, "Memory ran out: choose a smaller size or another format."),
)
KILLED = "Something ended the encoder, often because memory ran out: choose a smaller size or another format."
SIGKILL, SIGTERM = 9, 15  # Windows' signal module has no name for the first
ENDED_FROM_OUTSIDE = (-SIGKILL, -SIGTERM)  # as Linux does when memory runs out
GET_FFMPEG = (
    "Run 'pip install imageio-ffmpeg' in ComfyUI's Python, or let the environment variable "
    "IMAGEIO_FFMPEG_EXE name an ffmpeg program."
)
DEFAULT_ADVICE = "Try video/h264-mp4 with its default options; report this text if that fails too."


def ffmpeg_path() -> str:
    """The ffmpeg of imageio-ffmpeg (or of IMAGEIO_FFMPEG_EXE); Shortage says how to get one."""
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise Shortage(f"No ffmpeg was found. {GET_FFMPEG}") from error


def start_ffmpeg(argv: Sequence[str]) -> "subprocess.Popen[bytes]":
    """ffmpeg with pipes for input and messages, in a group of its own; Shortage when it cannot be started."""
    program = ffmpeg_path()
    try:
        return subprocess.Popen(
            [program, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,  # nothing of ours may be left to flush, for closing a full pipe would wait
            env={**os.environ, "SVT_LOG": "1"},  # the AV1 encoder otherwise fills stderr with its settings
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            start_new_session=True,  # POSIX: what it starts is ended with it
        )
    except OSError as error:
        advice = "Try again in a moment." if error.errno in SHORT else GET_FFMPEG
        raise Shortage(f"ffmpeg cannot be started: {reason(error)}. {advice}") from error


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and, where the system has process groups, all that it started, even after its own end."""
    if process.poll() is None:
        process.kill()
    kill_group = getattr(os, "killpg", None)  # not on Windows
    if kill_group is not None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left
            kill_group(process.pid, SIGKILL)


class Errand(threading.Thread):
    """Work that may stand still, in a thread that nobody has to wait for; `error` is what it failed with."""

    def __init__(self, work: Callable[[], object]):
        super().__init__(daemon=True)
        self._work = work
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except OSError as error:  # EPIPE; EINVAL on Windows
            self.error = error

    def is_over(self, pause: float) -> bool:
        """Whether the work is done, after `pause` seconds at most."""
        self.join(pause)
        return not self.is_alive()


class Encoder:
    """An ffmpeg process that eats bytes on standard input.

    Whatever may stand still is done in threads, so that `check` (which may raise) is asked many times a second
    while one waits. A write or a finish that stands still for `patience` seconds is a VideoError.
    """

    def __init__(self, argv: Sequence[str], patience: float, check: Callable[[], None], hide: str = ""):
        self._patience, self._check, self._hide = patience, check, hide
        self._said = b""
        self._process = start_ffmpeg(argv)
        atexit.register(self._end)  # its own group hears no Ctrl-C
        self._listening = Errand(self._listen)
        self._writing: Errand | None = None

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
        self._writing = Errand(partial(self._write, memoryview(data).cast("B")))
        self._wait(self._writing.is_over)
        if self._writing.error is not None:
            self._wait(self._has_ended)
            raise self._failure() from self._writing.error

    def finish(self) -> None:
        """Say that all is written and wait for a good end; VideoError otherwise."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._wait(self._has_ended)
        if self._process.returncode:
            raise self._failure()

    def kill(self) -> None:
        """End the process and what it started, whatever they are doing; takes seconds at the very most."""
        self._end()
        atexit.unregister(self._end)
        self._has_ended(END_SECONDS)
        for user, pipe in (
            (self._writing, self._process.stdin),
            (self._listening, self._process.stderr),
        ):
            # A pipe that somebody outside the group keeps open is left to its thread: closing it would wait.
            if user is None or user.is_over(PIPE_SECONDS):
                with suppress(OSError):  # bytes that nobody reads any more
                    pipe.close()  # type: ignore[union-attr]

    def _end(self) -> None:
        end_group(self._process)

    def _write(self, rest: memoryview) -> None:
        """Write all bytes, however few the pipe takes at a time."""
        while rest:
            rest = rest[self._process.stdin.write(rest) :]  # type: ignore[union-attr]

    def _wait(self, is_over: Callable[[float], bool]) -> None:
        """Wait until `is_over` (told how many seconds it may take) says yes, and ask `check` meanwhile."""
        deadline = time.monotonic() + self._patience
        while not is_over(POLL_SECONDS):
            self._check()
            if time.monotonic() > deadline:
                raise VideoError(
                    f"ffmpeg stood still for {self._patience:g} seconds and was ended. {DEFAULT_ADVICE}"
                )

    def _has_ended(self, pause: float) -> bool:
        """Whether the process has ended, after `pause` seconds at most."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(pause)
        return self._process.returncode is not None

    def _listen(self) -> None:
        """Keep the beginning of what ffmpeg says; all of it is read, so that ffmpeg never waits to speak."""
        source = self._process.stderr.fileno()  # type: ignore[union-attr]
        for said in iter(partial(os.read, source, READ_BYTES), b""):
            self._said += said[: KEPT_BYTES - len(self._said)]

    def _lines(self) -> list[str]:
        """ffmpeg's first messages, without what cannot be printed."""
        lines = self._said.decode(errors="replace").splitlines()
        readable = ("".join(filter(str.isprintable, line[:LINE_LETTERS])).rstrip() for line in lines)
        return [line for line in readable if line][:KEPT_LINES]

    def _failure(self) -> VideoError:
        """The error to raise, once the process has ended."""
        self._end()
        self._listening.is_over(PIPE_SECONDS)
        code, lines = self._process.returncode, self._lines()
        said = " | ".join(lines[:SHOWN_LINES]) or "it said nothing"
        said = said.replace(self._hide, "<output folder>") if self._hide else said
        if any(sign in line for sign in FULL_SIGNS for line in lines):
            return DiskFull(f"The disk is full: {said}. Free some space or choose another output folder.")
        everything = " ".join(lines)
        known = (text for sign, text in ADVICE if sign in everything)
        advice = next(known, KILLED if code < 0 else DEFAULT_ADVICE)
        short = code in ENDED_FROM_OUTSIDE or MEMORY_SIGN in everything
        return (Shortage if short else VideoError)(f"ffmpeg ended with exit code {code}: {said}. {advice}")


def run_encoder(argv: Sequence[str], patience: float, check: Callable[[], None], hide: str = "") -> None:
    """One ffmpeg run without raw input; VideoError when it fails."""
    with Encoder(argv, patience, check, hide) as encoder:
        encoder.finish()
