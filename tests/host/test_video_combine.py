"""VideoCombine on the real host: right files, early refusals, nothing left behind."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.formats import find_format
from kinetograph.modules.videofile.metadata import read_metadata
from kinetograph.modules.videofile.readback import inspect, read_frames
from kinetograph.modules.videofile.workspace import PREFIX
from kinetograph.modules.videofile.writer import Job, write_clip
from kinetograph.tests.clips import as_bytes, make_clip
from kinetograph.tests.host.graphs import node

OPTIONS = {
    "video/h264-mp4": {"crf": 19, "pix_fmt": "yuv420p"},
    "video/h265-mp4": {"crf": 22, "pix_fmt": "yuv420p"},
    "video/webm": {"crf": 20, "pix_fmt": "yuv420p"},
    "video/av1-webm": {"crf": 23, "pix_fmt": "yuv420p10le"},
    "video/ProRes": {"profile": "hq"},
    "video/ffv1-mkv": {"pix_fmt": "bgr0"},
    "image/gif": {"dither": "bayer"},
    "image/webp": {"quality": 80, "lossless": True},
    "image/webp-alpha": {"quality": 80, "lossless": True},
}
WORKFLOW = {"nodes": [{"id": 1, "title": 'ünï "quoted" = ; # \\ \n 日本'}], "version": 0.4}


def combine(images=("frames", 0), name="video/h264-mp4", options=None, **changes):
    inputs = {
        "images": list(images),
        "frame_rate": 8.0,
        "loop_count": 0,
        "filename_prefix": "combine/clip",
        "format": name,
        "pingpong": False,
        "save_output": True,
        "save_metadata": True,
        "trim_to_audio": False,
        **{f"format.{key}": value for key, value in {**OPTIONS.get(name, {}), **(options or {})}.items()},
    }
    return node("KinetographVideoCombine", **{**inputs, **changes})


def flat(frames=9, size=64):
    return node("EmptyImage", width=size, height=size, batch_size=frames, color=0x3366CC)


@pytest.fixture(scope="module")
def moving(server, tmp_path_factory):
    """A LoadImage of a lossless clip of 9 frames; ComfyUI loads animated pictures as batches."""
    encoding = parse_encoding("image/webp", 8, {"lossless": True})
    path = write_clip(Job(tmp_path_factory.mktemp("clip"), "moving", encoding), [make_clip(9)]).path
    return node("LoadImage", image=server.client.upload(path))


@pytest.fixture(scope="module")
def noise(server, tmp_path_factory):
    """48 frames that are hard to compress, so that encoding them takes its time."""
    encoding = parse_encoding("image/webp", 8, {"lossless": True})
    clip = torch.rand(8, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    path = write_clip(Job(tmp_path_factory.mktemp("clip"), "noise", encoding), [clip]).path
    picture = node("LoadImage", image=server.client.upload(path))
    return {"noise": picture, "frames": node("RepeatImageBatch", image=["noise", 0], amount=6)}


@pytest.fixture(scope="module")
def output(server):
    folder = server.base / "output"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def nothing_new(server, output):
    """Fails when a test leaves a file below the output folder, or a child process of the server."""
    before = set(everything(output))
    yield
    assert set(everything(output)) == before
    assert encoders(server) == []


def everything(folder):
    return [path for path in folder.rglob("*") if path.is_file() or path.name.startswith(PREFIX)]


def encoders(server):
    """Process ids of the server's children that are ffmpeg."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [pid for task in tasks for pid in task.read_text().split()]
    return [int(pid) for pid in pids if b"ffmpeg" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def made(result, output):
    """Path of the one file that a result names, in both dialects."""
    (values,) = result.outputs.values()
    (item,), (known,) = values["images"], values["gifs"]
    assert values["animated"] == [not item["filename"].endswith(".gif")] and item["type"] == "output"
    assert all(known[key] == item[key] for key in ("filename", "subfolder", "type"))
    return output / item["subfolder"] / item["filename"]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_format_with_its_workflow(client, output, moving, name):
    prompt = {"frames": moving, "save": combine(name=name)}
    result = client.run(prompt, workflow=WORKFLOW)
    assert result.status == "success", result.message
    path = made(result, output)
    found = inspect(path)
    assert (found.num_frames, found.width, found.height) == (9, 64, 64)
    notes = read_metadata(path, find_format(name))
    said = " ".join(result.outputs["save"].get("text", []))
    assert ("a video player" in said) == (name in ("video/h265-mp4", "video/ffv1-mkv", "video/ProRes")), said
    assert json.loads(notes["workflow"]) == WORKFLOW
    assert json.loads(notes["prompt"])["save"]["inputs"] == prompt["save"]["inputs"]
    if name in ("video/ffv1-mkv", "image/webp", "image/webp-alpha"):
        assert np.array_equal(list(read_frames(path)), as_bytes(make_clip(9)))


def test_a_client_can_fetch_the_file(client, output, moving):
    result = client.run({"frames": moving, "save": combine(frame_rate=12.0)})
    assert client.view(result.files()[0]) == made(result, output).read_bytes()
    assert result.outputs["save"]["gifs"][0]["format"] == "video/h264-mp4"


def test_the_video_goes_on_to_nodes_of_the_host(client, moving):
    prompt = {
        "frames": moving,
        "save": combine(name="video/ffv1-mkv", frame_rate=6.0),
        "parts": node("GetVideoComponents", video=["save", 0]),
        "again": combine(["parts", 0], "video/ffv1-mkv", filename_prefix="combine/again", frame_rate=7.0),
        "pictures": node("SaveImage", images=["parts", 0], filename_prefix="combine/picture"),
    }
    result = client.run(prompt)
    assert result.status == "success", result.message
    assert len(result.outputs["pictures"]["images"]) == 9


def test_sound_and_pingpong(client, output, moving):
    sound = node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    save = combine(audio=["sound", 0], pingpong=True, loop_count=1)
    result = client.run({"frames": moving, "sound": sound, "save": save})
    assert result.status == "success", result.message
    found = inspect(made(result, output))
    assert found.num_frames == 32 and found.audio_samples / found.audio_rate == pytest.approx(4, abs=0.1)


def test_a_preview_goes_to_the_temporary_folder(client, nothing_new, moving):
    result = client.run({"frames": moving, "save": combine(save_output=False, save_metadata=False)})
    assert result.status == "success", result.message
    assert result.outputs["save"]["images"][0]["type"] == "temp"
    assert client.view(result.files()[0])[4:8] == b"ftyp"


def test_without_metadata_the_file_tells_nothing(client, output, moving):
    result = client.run({"frames": moving, "save": combine(save_metadata=False)}, workflow=WORKFLOW)
    assert not {"prompt", "workflow"} & set(
        read_metadata(made(result, output), find_format("video/h264-mp4"))
    )


REFUSALS = [
    *(({"filename_prefix": prefix}, "filename_prefix") for prefix in (
        "", "../up", "a/../../up", "/etc/passwd", "a\nb", "a\\..\\b", "%yaer%", "%date:%", "C:\\x", "CON", "nul.txt", "-y", ".hidden", "x" * 121)),
    *(({"frame_rate": rate}, "frame_rate") for rate in (math.nan, math.inf, -1.0, 0.0, 241.0, "fast")),
    *(({"format.crf": crf}, "crf") for crf in (-1, 52, math.nan, "good", [], None)),
    *(({"format.pix_fmt": pix_fmt}, "pix_fmt") for pix_fmt in ("rgb24", "yuv420p;", "", 7)),
    *(({"format": name}, "video/h264-mp4, video/h265-mp4") for name in ("video/none", "", "h264-mp4", 3)),
    *(({"loop_count": loops}, "loop_count") for loops in (-1, 101, math.nan)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), REFUSALS, ids=lambda value: ascii(value)[:40])
def test_bad_inputs_are_refused_at_the_post(client, nothing_new, changes, named):
    result = client.run({"frames": flat(), "save": combine(**changes)})
    assert result.status == "refused", result.message
    assert named in result.message and "Traceback" not in result.message


@pytest.mark.parametrize("name", ["video/webm", "video/ProRes", "image/gif", "image/webp"])
def test_options_are_checked_for_their_format(client, nothing_new, name):
    for option in OPTIONS[name]:
        if option != "lossless":  # the host takes any number for true
            result = client.run({"frames": flat(), "save": combine(name=name, options={option: 99999})})
            assert result.status == "refused" and option in result.message


@pytest.mark.parametrize("name", ["image/gif"])
def test_a_gif_is_refused_beyond_50_frames_a_second(client, nothing_new, name):
    result = client.run({"frames": flat(), "save": combine(name=name, frame_rate=60.0)})
    assert result.status == "refused" and "0.1 to 50" in result.message


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_out_of_the_output_folder_is_refused(client, nothing_new, output, tmp_path):
    (output / "away").symlink_to(tmp_path)
    result = client.run({"frames": flat(), "save": combine(filename_prefix="away/x")})
    (output / "away").unlink()
    assert result.status == "refused" and "link leads out" in result.message
    assert not list(tmp_path.iterdir())


def test_odd_sizes_are_an_error_with_the_nearest_ones(client, nothing_new):
    result = client.run({"frames": flat(size=63), "save": combine()})
    assert result.status == "error" and "62x62 or 64x64" in result.message


def test_sound_for_a_gif_is_an_error(client, nothing_new):
    sound = node("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    result = client.run(
        {"frames": flat(), "sound": sound, "save": combine(name="image/gif", audio=["sound", 0])}
    )
    assert result.status == "error" and "holds no sound" in result.message


def slow(noise, **changes):
    """A prompt that keeps the encoder busy for a while."""
    options = {"crf": 0, "pix_fmt": "yuv444p"}
    return {**noise, "save": combine(name="video/h265-mp4", options=options, **changes)}


def signal_encoders(server, number):
    for pid in encoders(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def when_encoding(server, action, after=8):
    """A listener that calls `action` once, when frames have reached the encoder; returns (listener, moments).

    The encoder is held meanwhile, so that it is at work however fast or slow this computer is.
    """
    moments = []

    def listen(kind, data):
        if kind == "progress" and data["node"] == "save" and data["value"] >= after and not moments:
            signal_encoders(server, signal.SIGSTOP)
            moments.append(time.monotonic())
            action()
            time.sleep(0.1)
            signal_encoders(server, signal.SIGCONT)

    return listen, moments


NEEDS_SIGNALS = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and signals")


@NEEDS_SIGNALS
@pytest.mark.parametrize("after", [8, 24, 48])
def test_cancel_is_prompt_and_clean(client, server, nothing_new, noise, after):
    """At 48 all frames have been handed over, and the encoder still works on them."""
    listen, moments = when_encoding(server, client.interrupt, after)
    result = client.run(slow(noise, frame_rate=8.0 + after / 100), listener=listen)
    assert result.status == "interrupted", result.message
    assert time.monotonic() - moments[0] < 10  # a second when nothing else runs here
    result = client.run({"frames": flat(), "save": combine(save_output=False, frame_rate=9.0 + after)})
    assert result.status == "success", result.message


@NEEDS_SIGNALS
def test_a_dying_encoder_is_an_error(client, server, nothing_new, noise):
    listen, _ = when_encoding(server, lambda: signal_encoders(server, signal.SIGKILL))
    result = client.run(slow(noise, frame_rate=15.0), listener=listen)
    assert result.status == "error" and "exit code -9" in result.message
    assert str(server.base) not in result.error["exception_message"]


def test_a_full_disk_is_an_error_and_the_next_prompt_succeeds(client, server, output, moving, noise):
    disk = output / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        result = client.run(slow(noise, filename_prefix="small/x", frame_rate=16.0))
        assert result.status == "error" and "The disk is full" in result.message, result.message
        assert not list(disk.iterdir()) and encoders(server) == []
        result = client.run({"frames": moving, "save": combine(filename_prefix="small/x")})
        assert result.status == "success" and inspect(made(result, output)).num_frames == 9
    finally:
        subprocess.run(["umount", str(disk)], check=True)
