"""Which formats this computer can really encode: asked of the encoder itself, once, with a few seconds' patience."""

import os
import sys
import threading
import time
from concurrent import futures
from functools import cache
from pathlib import Path

from . import commands
from .encoder import Encoder
from .encoding import parse_encoding
from .errors import Shortage, VideoError
from .formats import FORMATS, VideoFormat

SIDE, FRAMES = 256, 2  # GPU encoders refuse much smaller pictures
PATIENCE = 8.0  # seconds that anybody waits for the answer
TRIAL_SECONDS = 30.0  # that the encoder may stand still: a busy computer is slow to start programs
REMEMBERED_SECONDS = 60.0  # a failure, before the encoder is asked again
GPU_SIGNS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL

Answer = futures.Future[VideoError | None]  # why a format cannot be encoded; None: it can


def usable_formats() -> tuple[VideoFormat, ...]:
    """The formats to offer: all that need no GPU, and those of the GPU whose first trial went well.

    Waits `PATIENCE` seconds at most in the life of the process, and only where there is an NVIDIA driver.
    """
    trials = [trial_of(entry.name) for entry in FORMATS if _needs_gpu(entry)] if _has_driver() else []
    for trial in trials:
        trial.begin_once()  # all at once, so that they are waited for together
    works = {trial.name for trial in trials if trial.went_well()}
    return tuple(entry for entry in FORMATS if not _needs_gpu(entry) or entry.name in works)


def check_usable(name: str) -> None:
    """Raise VideoError unless a tiny clip in this format can be encoded here.

    Waits `PATIENCE` seconds at most: for a node that runs, never for an event loop.
    """
    trial = trial_of(name)
    answer = trial.begin()
    futures.wait([answer], trial.patience)
    if not answer.done():
        raise Shortage(
            f"format {name} could not be tried out: ffmpeg has not answered for {PATIENCE:g} seconds. If this "
            "computer is very busy, wait a moment and queue again; otherwise see whether ffmpeg runs here."
        )
    problem = answer.result()
    if isinstance(problem, Shortage):
        raise Shortage(f"format {name} could not be tried out. {problem}") from problem
    if problem is not None:
        raise VideoError(
            f"format {name} does not work on this computer. {problem} It is tried again after "
            f"{REMEMBERED_SECONDS:g} seconds."
        ) from problem


class Trial:
    """Finds out, in a thread of its own, whether one format can be encoded here, and remembers the answer.

    Success is remembered for good and a failure for a while; a shortage of this computer (a full disk may be
    empty again) only while it is being found out.
    """

    def __init__(self, name: str):
        self.name = name
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._begun = self._ended = 0.0

    @property
    def patience(self) -> float:
        """Seconds that are left to wait: the second who asks does not wait all over again."""
        return max(0.0, self._begun + PATIENCE - time.monotonic())

    def begin(self) -> Answer:
        """The answer, perhaps still to come."""
        with self._lock:
            if self._answer is None or self._is_stale(self._answer):
                self._answer, self._begun = Answer(), time.monotonic()
                threading.Thread(target=self._find_out, args=[self._answer], daemon=True).start()
            return self._answer

    def begin_once(self) -> None:
        if self._answer is None:
            self.begin()

    def went_well(self) -> bool:
        """Whether the answer is good; waits for a trial that has just begun, and begins none."""
        if self._answer is None:
            return False
        futures.wait([self._answer], self.patience)
        return self._answer.done() and self._answer.result() is None

    def _is_stale(self, answer: Answer) -> bool:
        if not answer.done():
            return False
        if answer.exception() is not None or isinstance(answer.result(), Shortage):
            return True
        return answer.result() is not None and time.monotonic() > self._ended + REMEMBERED_SECONDS

    def _find_out(self, answer: Answer) -> None:
        try:
            problem = None
            encode_tiny_clip(self.name)
        except VideoError as error:
            problem = error
        except BaseException as error:  # nobody else would ever hear of it
            answer.set_exception(error)
            return
        self._ended = time.monotonic()
        answer.set_result(problem)


@cache
def trial_of(name: str) -> Trial:
    """The one Trial of a format."""
    return Trial(name)


def encode_tiny_clip(name: str) -> None:
    """Encode a few black frames into nothing; VideoError when that fails."""
    encoding = parse_encoding(name, 8)
    argv = commands.try_encoder(encoding, SIDE, SIDE)
    frame = bytes(encoding.frame_bytes(SIDE, SIDE))
    with Encoder(argv, TRIAL_SECONDS, lambda: None) as encoder:
        for _ in range(FRAMES):
            encoder.feed(frame)
        encoder.finish()


def _needs_gpu(entry: VideoFormat) -> bool:
    return "nvenc" in entry.name


def _has_driver() -> bool:
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvEncodeAPI64.dll").exists()
    return any(os.path.exists(sign) for sign in GPU_SIGNS)
