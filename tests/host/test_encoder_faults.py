"""A misbehaving ffmpeg, a kill and lost folders on the real host: it answers, it hears Cancel, nothing is left."""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from kinetograph.modules.videofile.orphans import OWNER, PREFIX, this_boot
from kinetograph.modules.videofile.probe import PATIENCE
from kinetograph.tests.host.graphs import node
from kinetograph.tests.stand_in import HANGS, HANGS_AT_THE_END, HANGS_IN_A_CHILD, NAP, WORKS, StandIn, nappers
from kinetograph.tools.server import Server

pytestmark = [
    pytest.mark.newest,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a shell, /proc and signals"),
]
OPTIONS = {"video/h264-mp4": {"crf": 19, "pix_fmt": "yuv420p"}, "video/ffv1-mkv": {"pix_fmt": "bgr0"}}


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory):
    return StandIn(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="module")
def output(base):
    """The output folder of the faulty server, with two workspaces that killed ones left; below the session's own."""
    folder = base / "output" / "shared"
    for place, boot in (("deep/er", this_boot()["boot"]), ("", "another")):
        work = folder / place / f"{PREFIX}{boot[:7]}"
        work.mkdir(parents=True)
        (work / OWNER).write_text(json.dumps({**this_boot(), "boot": boot, "process": 1}))
        (work / "picture.mp4").write_bytes(b"half a clip")
    return folder


@pytest.fixture(scope="module")
def faulty(host, tmp_path_factory, ffmpeg, output):
    """A server with the stand-in for ffmpeg."""
    base = tmp_path_factory.mktemp("faulty")
    server = Server(Path(sys.executable), host, base, arguments=["--output-directory", str(output)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg.script))
        server.__enter__()  # the session's own server may start later, and is to have the real one
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def good_again(ffmpeg):
    ffmpeg.behave()
    yield
    for pid in nappers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def clip(name="video/h264-mp4", frames=24, size=256, prefix="clip", **changes):
    options = {f"format.{key}": value for key, value in OPTIONS[name].items()}
    clip.color += 1  # else the host answers from its cache
    return {
        "frames": node("EmptyImage", width=size, height=size, batch_size=frames, color=clip.color),
        "save": node(
            "KinetographVideoCombine", images=["frames", 0], frame_rate=8.0, loop_count=0,
            filename_prefix=prefix, format=name, pingpong=False, save_output=True, save_metadata=True,
            trim_to_audio=False, **options, **changes,
        ),
    }  # fmt: skip


clip.color = 0


def workspaces(folder):
    return [path for path in folder.rglob(f"{PREFIX}*") if "another" not in path.name]


def at_work(action, delay=0.5):
    """(listener, moments): does something once, a while after the node has its frames; `moments` holds when.

    The host says "executing" twice of a node whose inputs are lazy: before they are computed, and after.
    """
    moments, begun = [], []

    def act():
        time.sleep(delay)
        moments.append(time.monotonic())
        action()

    def listen(kind, data):
        if kind == "executing" and data["node"] in ("frames", "save"):
            begun.append(data["node"])
            if begun[-2:] == ["frames", "save"]:
                threading.Thread(target=act).start()

    return listen, moments


def test_the_start_clears_what_a_killed_server_left(faulty, output):
    """Of this boot at once; of another, which may be another machine's, not before a day has gone."""
    assert workspaces(output) == [] and (output / f"{PREFIX}another").is_dir()


def test_a_child_that_keeps_messages_open_holds_no_node(faulty, ffmpeg, output):
    ffmpeg.behave(f"{NAP} & {WORKS}")
    result = faulty.client.run(clip(frames=3, size=64), timeout=30)
    assert result.status == "success" and len(result.files()) == 1 and nappers() == []
    ffmpeg.behave(f"{NAP} & echo boom >&2; exit 3")
    result = faulty.client.run(clip(), timeout=30)
    assert result.status == "error" and "exit code 3: boom" in result.message and nappers() == []
    assert workspaces(output) == []


@pytest.mark.parametrize(
    "habit",
    [HANGS, HANGS_AT_THE_END, HANGS_IN_A_CHILD, f"{NAP} & {HANGS}"],
    ids=["hangs", "hangs at the end", "hangs in a child", "leaves a child and hangs"],
)
def test_cancel_is_heard_while_ffmpeg_stands_still(faulty, ffmpeg, output, habit):
    ffmpeg.behave(habit)
    listen, moments = at_work(faulty.client.interrupt)
    result = faulty.client.run(clip(), listen, timeout=30)
    assert result.status == "interrupted", result.message
    assert time.monotonic() - moments[0] < 2.0
    assert workspaces(output) == [] and nappers() == []


def test_a_stalled_trial_stops_nobody_else(faulty, ffmpeg):
    """A run waits for a few seconds, one behind it not at all, before its frames are made; the server answers all the while."""
    ffmpeg.behave(trial=HANGS)
    answers = []
    post = threading.Thread(
        target=lambda: answers.append(faulty.client.run(clip("video/ffv1-mkv"), timeout=30))
    )
    post.start()
    slowest = 0.0
    while post.is_alive():
        started = time.monotonic()
        faulty.client.get("/system_stats")
        slowest = max(slowest, time.monotonic() - started)
        post.join(0.05)
    assert slowest < 2 and answers[0].status == "error"
    assert PATIENCE - 1 < answers[0].seconds < PATIENCE + 4
    again = faulty.client.run(clip("video/ffv1-mkv"), timeout=30)
    assert again.status == "error" and again.seconds < 2
    for result in (answers[0], again):
        assert (
            f"ffv1-mkv could not be tried out: ffmpeg has not answered for {PATIENCE:g} s" in result.message
        )
    assert faulty.client.run(clip(frames=3, size=64), timeout=30).status == "success"


@pytest.mark.parametrize("harm", ["removed", "a file"])
def test_an_output_folder_that_goes_meanwhile_is_an_error(faulty, ffmpeg, output, harm):
    def do_harm():
        shutil.rmtree(output / "sub")
        if harm == "a file":
            (output / "sub").write_text("x")
        (ffmpeg.folder / "go").touch()

    ffmpeg.behave(f"cat > /dev/null; until [ -e {ffmpeg.folder}/go ]; do sleep 0.05; done; exit 0")
    listen, moments = at_work(do_harm)
    result = faulty.client.run(clip(prefix="sub/clip"), listen, timeout=30)
    assert moments and result.status == "error", result.message
    assert "output folder was moved, removed or replaced" in result.message
    assert str(output) not in result.message
    (ffmpeg.folder / "go").unlink()


def test_a_file_in_the_place_of_a_folder_is_an_error(faulty, output):
    """It is the file of the test before."""
    (output / "sub").write_text("x")
    result = faulty.client.run(clip(prefix="sub/clip"), timeout=30)
    assert result.status == "error" and "a file lies where a folder should be" in result.message
    assert str(output) not in result.message and "Errno" not in result.message


def test_a_killed_server_leaves_nothing_to_the_next(faulty, ffmpeg, output, client):
    """No file under a final name; the workspace goes when another server uses the folder."""
    ffmpeg.behave(f'head -c 1000000 | "$real" "$@"; {HANGS}')
    listen, moments = at_work(faulty.process.kill, delay=1.0)
    with pytest.raises(Exception):  # noqa: B017  the connection breaks, in one way or another
        faulty.client.run(clip("video/h264-mp4", prefix="killed/clip"), listen, timeout=30)
    assert moments
    (left,) = workspaces(output)
    assert list((output / "killed").iterdir()) == [left] and (left / OWNER).exists()
    result = client.run(clip(frames=3, size=64, prefix="shared/killed/clip"))
    assert result.status == "success", result.message
    assert workspaces(output) == [] and len(list((output / "killed").iterdir())) == 1
