"""An ffmpeg that stands still, floods or leaves children: nobody is held, and nothing is left running."""

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import torch

from kinetograph.modules.videofile.encoder import Encoder
from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import Shortage, VideoError
from kinetograph.modules.videofile.writer import Job, VideoWriter
from kinetograph.tests.stand_in import HANGS, HANGS_AT_THE_END, HANGS_IN_A_CHILD, NAP, WORKS, StandIn, nappers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
PACK = Path(sys.modules["kinetograph"].__path__[0]) / "tools" / "pack.py"
NO_INPUT = {
    "takes nothing": HANGS,
    "takes all and never ends": HANGS_AT_THE_END,
    "waits for a child": HANGS_IN_A_CHILD,
    "closes its input and stays": f"exec 0<&-; exec {NAP}",
    "repeats itself": "yes an error that never ends >&2",
}


class Cancelled(BaseException):
    """As ComfyUI 0.30 raises it."""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "stand-in").mkdir()
    stand_in = StandIn(tmp_path / "stand-in")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(stand_in.script))
    return stand_in


@pytest.fixture
def output(tmp_path):
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


@pytest.fixture(autouse=True)
def nothing_left_running():
    threads = threading.active_count()
    yield
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= threads


def write(output, frames=24, size=256, **more):
    """A clip that no pipe can swallow whole."""
    with VideoWriter(Job(output, "clip", parse_encoding("video/h264-mp4", 8), **more)) as writer:
        writer.write(torch.zeros(frames, size, size, 3))
    return writer.path


def cancel_after(seconds):
    """(check, moments): a Cancel that comes after a while; `moments` holds when it was pressed."""
    pressed = time.monotonic() + seconds

    def check():
        if time.monotonic() > pressed:
            raise Cancelled

    return check, pressed


@pytest.mark.parametrize("habit", NO_INPUT)
def test_cancel_is_heard_at_once_while_ffmpeg(ffmpeg, output, habit):
    ffmpeg.behave(NO_INPUT[habit])
    check, pressed = cancel_after(0.4)
    with pytest.raises(Cancelled):
        write(output, check=check, patience=8.0)
    assert time.monotonic() - pressed < 0.9
    assert not list(output.iterdir()) and nappers() == []


@pytest.mark.parametrize("habit", list(NO_INPUT)[:4])
def test_patience_has_an_end_while_ffmpeg(ffmpeg, output, habit):
    ffmpeg.behave(NO_INPUT[habit])
    with pytest.raises(VideoError, match="stood still for 0.5 seconds"):
        write(output, patience=0.5)
    assert not list(output.iterdir())


def test_a_child_with_the_messages_in_hand_ends_with_a_good_ffmpeg(ffmpeg, output):
    ffmpeg.behave(f"{NAP} & {WORKS}")
    started = time.monotonic()
    assert write(output, 3, 64).exists()
    assert time.monotonic() - started < 10 and nappers() == []


def test_a_child_with_the_messages_in_hand_ends_with_a_bad_ffmpeg(ffmpeg, output):
    ffmpeg.behave(f"{NAP} & echo boom >&2; exit 3")
    started = time.monotonic()
    with pytest.raises(VideoError, match="exit code 3: boom"):
        write(output)
    assert time.monotonic() - started < 5 and nappers() == []


def test_a_child_that_ran_away_holds_nobody(ffmpeg, output):
    """Neither with the messages nor with the input: its frames are never read."""
    ffmpeg.behave(f"exec 3<&0; setsid sleep 4 <&3 & {HANGS}")
    check, pressed = cancel_after(0.4)
    with pytest.raises(Cancelled):
        write(output, check=check, patience=8.0)
    assert time.monotonic() - pressed < 3 and not list(output.iterdir())


def test_where_there_are_no_process_groups(ffmpeg, output, monkeypatch):
    """As on Windows: ffmpeg itself is ended, and a child of its own holds nobody."""
    monkeypatch.delattr(os, "killpg")
    assert write(output, 3, 64).exists()
    ffmpeg.behave("sleep 4 & exit 3")
    started = time.monotonic()
    with pytest.raises(VideoError, match="exit code 3: it said nothing"):
        write(output)
    assert time.monotonic() - started < 3.5
    ffmpeg.behave(HANGS)
    check, pressed = cancel_after(0.4)
    with pytest.raises(Cancelled):
        write(output, check=check, patience=8.0)
    assert time.monotonic() - pressed < 0.9


def test_a_flood_of_messages_without_an_end_of_line_is_not_kept(ffmpeg, output):
    ffmpeg.behave("head -c 100000000 /dev/zero >&2; echo too late >&2; exit 5")
    tracemalloc.start()
    try:
        with pytest.raises(VideoError, match="exit code 5: it said nothing") as raised:
            write(output, 1, 16)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert len(str(raised.value)) < 2000


def test_messages_are_made_fit_to_read(ffmpeg, output):
    ffmpeg.behave(r"printf 'bo\033[31mom\007\n\nwhy\n' >&2; exit 5")
    with pytest.raises(VideoError, match=r"exit code 5: bo\[31mom \| why\. Try"):
        write(output)


def test_no_more_open_files_are_no_reason_to_install_ffmpeg(ffmpeg, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(24, "Too many open files: '/secret/path'")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(Shortage, match="too many files are open") as raised:
        Encoder([], 1.0, lambda: None)
    assert "pip" not in str(raised.value) and "secret" not in str(raised.value)


def test_an_ffmpeg_that_may_not_be_run_says_so(ffmpeg, output):
    ffmpeg.script.chmod(0o644)
    with pytest.raises(VideoError, match="cannot be started: this user has no right to it.*pip install"):
        write(output)
    assert not list(output.iterdir())


SCRIPT = """
import runpy, sys, threading, time
runpy.run_path(sys.argv[1])["register"]()
from kinetograph.modules.videofile.encoder import Encoder
encoder = Encoder(["x"], 600.0, lambda: None)
threading.Thread(target=encoder.feed, args=[bytes(10**7)], daemon=True).start()
time.sleep(0.2)
"""


def test_ffmpeg_goes_with_the_program_that_started_it(ffmpeg):
    """Ctrl-C in a terminal reaches the server alone, for ffmpeg has a group of its own."""
    ffmpeg.behave(HANGS)
    subprocess.run([sys.executable, "-c", SCRIPT, str(PACK)], check=True, timeout=60)
    assert nappers() == []
