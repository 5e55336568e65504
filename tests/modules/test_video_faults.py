"""What goes wrong while a video is written: a true error each time, and nothing left behind."""

import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from kinetograph.modules.videofile import commands
from kinetograph.modules.videofile import writer as writing
from kinetograph.modules.videofile.encoder import Encoder
from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.formats import FORMATS
from kinetograph.modules.videofile.metadata import Notes
from kinetograph.modules.videofile.orphans import OWNER
from kinetograph.modules.videofile.readback import Contents, inspect, verify
from kinetograph.modules.videofile.workspace import PREFIX, appear, sweep_orphans
from kinetograph.modules.videofile.writer import Job, VideoWriter
from kinetograph.tests.clips import make_clip

SOFTWARE = [entry.name for entry in FORMATS if "nvenc" not in entry.name]
PACK = Path(sys.modules["kinetograph"].__path__[0]) / "tools" / "pack.py"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and tmpfs are POSIX")


class Cancelled(BaseException):
    """As ComfyUI 0.30 raises it."""


def job(folder, name="video/h264-mp4", options=None, pingpong=False, **more):
    return Job(folder, "clip", parse_encoding(name, 8, options, 0, pingpong), **more)


def children():
    """Process ids of our children, as /proc tells."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return path.read_text().split() if path.exists() else []


@pytest.fixture(autouse=True)
def nothing_left_running():
    threads, processes = threading.active_count(), children()
    yield
    assert threading.active_count() <= threads and children() == processes


@pytest.mark.parametrize("name", ["video/h264-mp4", "video/h265-mp4"])
@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 63), (63, 63)])
def test_odd_sizes_are_refused_before_a_frame_is_written(tmp_path, name, height, width):
    with pytest.raises(VideoError, match=r"even width and height.*resize or crop"):
        with VideoWriter(job(tmp_path, name)) as writer:
            writer.write(make_clip(2, height, width))
    assert not list(tmp_path.iterdir()) and writer.num_frames == 0


@pytest.mark.parametrize(
    "name", ["video/webm", "video/av1-webm", "video/ProRes", "video/ffv1-mkv", "image/gif"]
)
def test_odd_sizes_are_kept_where_the_format_can(tmp_path, name):
    with VideoWriter(job(tmp_path, name)) as writer:
        writer.write(make_clip(3, 35, 51))
    found = inspect(writer.path)
    assert (found.width, found.height) == (51, 35)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["video/h264-mp4", "video/ffv1-mkv", "image/gif", "image/webp"])
def test_a_bad_frame_is_named(tmp_path, name, bad):
    clip = make_clip(9)
    clip[7, 3, 4, 1] = bad
    with pytest.raises(VideoError, match="Frame 7 holds 1 values that are NaN or infinite"):
        with VideoWriter(job(tmp_path, name)) as writer:
            for part in clip.split(2):
                writer.write(part)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_bad_frame_is_found_in_half_precision(tmp_path, dtype):
    clip = make_clip(2).to(dtype)
    clip[1, 0, 0, 0] = math.nan
    with pytest.raises(VideoError, match="Frame 1 "), VideoWriter(job(tmp_path)) as writer:
        writer.write(clip)


def test_another_scale_is_no_overshoot(tmp_path):
    with pytest.raises(VideoError, match="must lie in 0..1"), VideoWriter(job(tmp_path)) as writer:
        writer.write(make_clip(2) * 255)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shape", [(2, 64, 64), (2, 64, 64, 2), (2, 64, 64, 1), (2, 3, 64, 64), (1, 2, 64, 64, 3)]
)
def test_other_shapes_are_refused(tmp_path, shape):
    with pytest.raises(VideoError, match="shape"), VideoWriter(job(tmp_path)) as writer:
        writer.write(torch.zeros(shape))


def test_all_frames_have_one_size(tmp_path):
    with pytest.raises(VideoError, match="All frames must be 64x64: got 32x64"):
        with VideoWriter(job(tmp_path)) as writer:
            writer.write(make_clip(2))
            writer.write(make_clip(2, 64, 32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SOFTWARE)
def test_no_frames_make_no_file(tmp_path, name):
    with pytest.raises(VideoError, match="No frames arrived"), VideoWriter(job(tmp_path, name)):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["video/h264-mp4", "image/gif", "video/webm"])
@pytest.mark.parametrize("frame", [0, 1, 9])
def test_a_dying_encoder_is_an_error(tmp_path, name, frame):
    clip = make_clip(17, 128, 128)
    with pytest.raises(VideoError, match="exit code -9.*memory ran out"):
        with VideoWriter(job(tmp_path, name)) as writer:
            for index, part in enumerate(clip.split(1)):
                writer.write(part)
                if index == frame:
                    os.kill(writer._encoder.pid, signal.SIGKILL)
    assert not list(tmp_path.iterdir())


@POSIX
@pytest.mark.parametrize("where", ["writing", "finishing"])
def test_an_encoder_that_stands_still_is_ended(tmp_path, where):
    clip = torch.rand(16, 256, 256, 3)
    with pytest.raises(VideoError, match="stood still for 1 seconds"):
        with VideoWriter(job(tmp_path, patience=1.0)) as writer:
            writer.write(clip[:1])
            os.kill(writer._encoder.pid, signal.SIGSTOP)
            writer.write(clip[1:] if where == "writing" else clip[1:1])
    assert not list(tmp_path.iterdir())


@POSIX
def test_cancel_reaches_a_slow_finish(tmp_path):
    pressed = threading.Event()

    def check():
        if pressed.is_set():
            raise Cancelled

    started = time.monotonic()
    with pytest.raises(Cancelled), VideoWriter(job(tmp_path, check=check)) as writer:
        writer.write(make_clip(4))
        os.kill(writer._encoder.pid, signal.SIGSTOP)
        pressed.set()
    assert time.monotonic() - started < 20 and not list(tmp_path.iterdir())


def test_cancel_is_seen_at_every_frame(tmp_path):
    seen = []

    def check():
        seen.append(1)
        if len(seen) == 6:
            raise Cancelled

    with pytest.raises(Cancelled), VideoWriter(job(tmp_path, check=check)) as writer:
        writer.write(make_clip(17))
    assert writer.num_frames == 5 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SOFTWARE)
@pytest.mark.parametrize("error", [Cancelled, RuntimeError])
def test_an_interrupt_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error), VideoWriter(job(tmp_path, name, pingpong=True)) as writer:
        writer.write(make_clip(9))
        raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["-c:v", "libx264", "-crf", "nan"], ["-c:v", "no_such"], ["-pix_fmt", "no_such"]]
)
def test_an_option_that_the_encoder_refuses_is_an_error(tmp_path, monkeypatch, words):
    """Options are checked long before; this is for an ffmpeg that disagrees with our table."""
    monkeypatch.setattr(writing.Encoding, "codec_argv", lambda self: ["-pix_fmt", "yuv420p", *words])
    with pytest.raises(VideoError, match="ffmpeg ended with exit code") as raised:
        with VideoWriter(job(tmp_path)) as writer:
            for part in make_clip(17, 128, 128).split(1):
                writer.write(part)
    assert not list(tmp_path.iterdir()) and str(tmp_path) not in str(raised.value)


def test_an_encoder_that_quietly_drops_bits_is_caught(tmp_path, monkeypatch):
    eight_bits = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
    monkeypatch.setattr(
        commands,
        "encode",
        lambda encoding, w, h, tags, target: [
            *commands.QUIET,
            *commands.raw_frames(encoding, w, h),
            *eight_bits,
            *commands.output(encoding, target),
        ],
    )
    with pytest.raises(VideoError, match="yuv420p10le was asked for, the encoder made yuv420p"):
        with VideoWriter(job(tmp_path, options={"pix_fmt": "yuv420p10le"})) as writer:
            writer.write(make_clip(3))
    assert not list(tmp_path.iterdir())


def test_lost_frames_are_caught(tmp_path, monkeypatch):
    feed = Encoder.feed
    fed = []
    monkeypatch.setattr(
        Encoder,
        "feed",
        lambda self, data: fed.append(1) if len(fed) == 3 else (fed.append(1), feed(self, data)),
    )
    with pytest.raises(VideoError, match="9 frames of 64x64 were written, 8 frames of 64x64 are in it"):
        with VideoWriter(job(tmp_path)) as writer:
            writer.write(make_clip(9))
    assert not list(tmp_path.iterdir())


def test_a_clip_that_plays_too_fast_is_caught():
    encoding = parse_encoding("video/webm", 8)
    good = Contents(16, 64, 64, 2, "yuv420p", 88200, 44100)
    verify(good, encoding, 16, 64, 64, 2)
    for wrong in (Contents(16, 64, 64, 1, "yuv420p"), Contents(16, 64, 64, 2, "yuv420p", 44100, 44100)):
        with pytest.raises(VideoError, match="The finished file is wrong"):
            verify(wrong, encoding, 16, 64, 64, 2)


@pytest.mark.parametrize("name", SOFTWARE)
def test_a_truncated_file_cannot_pass(tmp_path, name):
    with VideoWriter(job(tmp_path, name)) as writer:
        writer.write(make_clip(17))
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(VideoError):
        verify(inspect(writer.path), writer.encoding, 17, 64, 64, 0)


def test_a_note_that_does_not_survive_is_named_and_costs_no_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "ffmetadata", lambda notes: ";FFMETADATA1\nprompt=other\n")
    with VideoWriter(job(tmp_path, notes=Notes({"prompt": "{}", "workflow": "{}"}, {}))) as writer:
        writer.write(make_clip(2))
    assert inspect(writer.path).num_frames == 2
    assert "'prompt' (it came back changed), 'workflow' (it did not come back)" in writer.said[0]


WRITERS = """
import os, runpy, sys, torch
from pathlib import Path
runpy.run_path(sys.argv[1])["register"]()
from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.writer import Job, VideoWriter
for name in map(str.strip, sys.stdin):
    if child := os.fork():
        print("pid", child, flush=True)
        continue
    torch.set_num_threads(1)
    clip = torch.rand(9, 64, 64, 3)
    while True:
        with VideoWriter(Job(Path(sys.argv[2]), "clip", parse_encoding(name, 8))) as writer:
            writer.write(clip)
        os.write(1, (writer.path.name + "\\n").encode())
"""


@POSIX
def test_kill_9_at_any_moment_leaves_only_whole_files(tmp_path):
    """Two writers at a time share a folder; each is killed at a random moment."""
    moments, told = random.Random(0), tmp_path / "told.txt"
    folder = tmp_path / "output"
    folder.mkdir()
    command = [sys.executable, "-c", WRITERS, str(PACK), str(folder)]
    with (
        told.open("w") as out,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, text=True) as starter,
    ):
        for count, name in enumerate(["video/h264-mp4", "image/gif", "video/webm", "image/webp"] * 3):
            starter.stdin.write(f"{name}\n" * 2)
            starter.stdin.flush()
            while len(pids := re.findall(r"pid (\d+)", told.read_text())) < 2 * count + 2:
                time.sleep(0.01)
            for pid in pids[-2:]:
                time.sleep(moments.random() / 2)
                os.kill(int(pid), signal.SIGKILL)
        starter.stdin.close()
    time.sleep(0.3)  # an orphaned ffmpeg sees the end of its input and goes
    names = [line for line in told.read_text().splitlines() if not line.startswith("pid")]
    shown = {path.name for path in folder.iterdir() if not path.name.startswith(PREFIX)}
    assert len(names) == len(set(names)) > 3 and set(names) <= shown
    assert all(inspect(folder / entry).num_frames == 9 for entry in shown)
    orphans = [path for path in folder.iterdir() if path.name.startswith(PREFIX)]
    # one that was killed before it said whose it is goes after a day
    owned = [path for path in orphans if (path / OWNER).is_file() and (path / OWNER).stat().st_size]
    # the owners of the others are dead, so they go at once; a busy machine lets an orphaned ffmpeg end later
    patience = time.monotonic() + 10
    while sweep_orphans(folder) or (any(map(Path.exists, owned)) and time.monotonic() < patience):
        time.sleep(0.1)
    assert owned and not any(map(Path.exists, owned))
    assert sweep_orphans(folder, age=-1) == len(orphans) - len(owned)


def test_a_name_taken_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    made, final = tmp_path / "made", tmp_path / "final"
    made.write_text("new"), final.write_text("old")
    assert not appear(made, final)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    assert not appear(made, final) and final.read_text() == "old"
    assert appear(made, tmp_path / "other") and (tmp_path / "other").read_text() == "new"


def test_many_writers_in_one_folder_share_no_name(tmp_path):
    paths = []

    def work():
        with VideoWriter(job(tmp_path, "video/ffv1-mkv")) as writer:
            writer.write(make_clip(3, 16, 16))
        paths.append(writer.path)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == [f"clip_{n:05}_.mkv" for n in range(1, 9)]
    assert len(list(tmp_path.iterdir())) == 8
