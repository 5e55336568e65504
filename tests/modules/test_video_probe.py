"""Whether a format works here is found out once, beside the event loop, and no failure is held against it for good."""

import os
import time
from concurrent import futures

import pytest

from kinetograph.modules.videofile import probe
from kinetograph.modules.videofile.errors import Shortage, VideoError
from kinetograph.modules.videofile.formats import FORMATS
from kinetograph.modules.videofile.request import check_request, request_problem
from kinetograph.tests.stand_in import HANGS, WORKS, StandIn

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
SOFTWARE = [entry.name for entry in FORMATS if "nvenc" not in entry.name]
GPU = [entry.name for entry in FORMATS if "nvenc" in entry.name]
FAILS = "echo 'no such thing' >&2; exit 3"
FULL = "echo 'No space left on device' >&2; exit 1"


@pytest.fixture(autouse=True)
def ffmpeg(tmp_path, monkeypatch):
    stand_in = StandIn(tmp_path)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(stand_in.script))
    probe.trial_of.cache_clear()
    yield stand_in
    probe.trial_of.cache_clear()


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A computer that seems to have an NVIDIA driver."""
    monkeypatch.setattr(probe, "GPU_SIGNS", (str(tmp_path),))


def offered():
    return [entry.name for entry in probe.usable_formats()]


def test_gpu_formats_are_offered_only_where_they_work(ffmpeg, driver):
    assert len(GPU) == 3
    ffmpeg.behave(trial=FAILS)
    assert offered() == SOFTWARE
    for name in GPU:
        with pytest.raises(VideoError, match=f"{name} does not work on this computer"):
            probe.check_usable(name)


def test_gpu_formats_that_work_are_offered(ffmpeg, driver):
    ffmpeg.behave(trial=f'case "$*" in *h264_nvenc*) {FAILS};; esac; cat > /dev/null')
    assert set(offered()) == {*SOFTWARE, *GPU} - {"video/nvenc_h264-mp4"}


def test_without_a_driver_nothing_is_tried_out(ffmpeg, monkeypatch):
    monkeypatch.setattr(probe, "GPU_SIGNS", ())
    assert offered() == SOFTWARE and ffmpeg.trials == 0


def test_a_list_of_formats_is_waited_for_once(ffmpeg, driver, monkeypatch):
    """It is asked for by every page and every post, in the event loop."""
    monkeypatch.setattr(probe, "PATIENCE", 1.0)
    monkeypatch.setattr(probe, "TRIAL_SECONDS", 2.0)
    ffmpeg.behave(trial=HANGS)
    started = time.monotonic()
    assert offered() == SOFTWARE and time.monotonic() - started < 2
    started = time.monotonic()
    assert offered() == SOFTWARE and time.monotonic() - started < 0.2
    assert ffmpeg.trials == 3
    for name in GPU:
        assert probe.trial_of(name).begin().result(10) is not None  # no ffmpeg outlives the test


def test_a_post_never_waits_for_ffmpeg(ffmpeg, tmp_path):
    """Posts are checked in the server's event loop: what costs time is found out when the node begins to run."""
    ffmpeg.behave(trial=HANGS)
    started = time.monotonic()
    for chosen in ({"format": "video/webm"}, {"format": None, "crf": None, "pix_fmt": None}):
        assert request_problem(chosen, 8.0, "x", tmp_path) is None
    assert time.monotonic() - started < 0.5 and ffmpeg.trials == 0


def test_a_stalled_trial_is_waited_for_once(ffmpeg, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "PATIENCE", 1.0)
    monkeypatch.setattr(probe, "TRIAL_SECONDS", 2.0)
    ffmpeg.behave(trial=HANGS)

    def ask():
        """(words, seconds that the answer took)"""
        started = time.monotonic()
        with pytest.raises(VideoError) as raised:
            check_request("video/webm", None, "x", {}, tmp_path)
        return str(raised.value), time.monotonic() - started

    with futures.ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda _: ask(), range(2)), ask()]
    assert all("webm could not be tried out" in words and "1 seconds" in words for words, _ in answers)
    assert all(0.5 < seconds < 1.9 for _, seconds in answers[:2]) and answers[2][1] < 0.2
    assert isinstance(probe.trial_of("video/webm").begin().result(10), VideoError)
    words, seconds = ask()
    assert "webm does not work" in words and "stood still for 2 seconds" in words and seconds < 0.2
    assert ffmpeg.trials == 1


def test_a_slow_trial_counts_when_it_is_done(ffmpeg, monkeypatch):
    monkeypatch.setattr(probe, "PATIENCE", 0.2)
    ffmpeg.behave(trial=f"sleep 0.7; {WORKS}")
    with pytest.raises(Shortage, match="has not answered for 0.2 seconds"):
        probe.check_usable("image/gif")
    assert probe.trial_of("image/gif").begin().result(20) is None
    probe.check_usable("image/gif")
    assert ffmpeg.trials == 1


def test_failures_are_remembered_for_a_while(ffmpeg, monkeypatch):
    ffmpeg.behave(trial=FAILS)
    for _ in range(3):
        with pytest.raises(VideoError, match="image/gif does not work on this computer.*no such thing"):
            probe.check_usable("image/gif")
    assert ffmpeg.trials == 1
    ffmpeg.behave()
    monkeypatch.setattr(probe, "REMEMBERED_SECONDS", 0.0)
    probe.check_usable("image/gif")
    assert ffmpeg.trials == 2


@pytest.mark.parametrize("trouble", [FULL, "kill -9 $$", "echo Cannot allocate memory >&2; exit 1"])
def test_a_shortage_is_neither_remembered_nor_blamed_on_the_format(ffmpeg, trouble):
    ffmpeg.behave(trial=trouble)
    with pytest.raises(Shortage, match="image/gif could not be tried out") as raised:
        probe.check_usable("image/gif")
    assert "does not work" not in str(raised.value)
    ffmpeg.behave()
    probe.check_usable("image/gif")


def test_success_is_remembered(ffmpeg):
    for _ in range(3):
        probe.check_usable("image/gif")
    assert ffmpeg.trials == 1
