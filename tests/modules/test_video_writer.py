"""Clips through every format and back: pictures, lengths, sound and the workflow inside."""

import json
import math
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.formats import FORMATS, find_format
from kinetograph.modules.videofile.metadata import Notes, read_metadata
from kinetograph.modules.videofile.pixels import Audio, to_pixels
from kinetograph.modules.videofile.readback import Contents, inspect, read_frames, verify
from kinetograph.modules.videofile.writer import Job, VideoWriter
from kinetograph.tests.clips import as_bytes, make_clip, psnr

SOFTWARE = [entry for entry in FORMATS if "nvenc" not in entry.name]
LOUD = [entry for entry in SOFTWARE if entry.audio]
CASES = [  # format, options, least PSNR: the sharp red disc costs 4:2:0 chroma about 10 dB
    ("video/h264-mp4", {}, 30),
    ("video/h264-mp4", {"pix_fmt": "yuv444p", "crf": 0}, 48),
    ("video/h264-mp4", {"pix_fmt": "yuv420p10le"}, 29.5),
    ("video/h265-mp4", {}, 29.5),
    ("video/h265-mp4", {"pix_fmt": "yuv420p"}, 29.5),
    ("video/h265-mp4", {"pix_fmt": "yuv444p", "crf": 5}, 44),
    ("video/webm", {}, 30),
    ("video/webm", {"pix_fmt": "yuv444p"}, 40),
    ("video/av1-webm", {}, 30),
    ("video/av1-webm", {"pix_fmt": "yuv420p"}, 30),
    *(("video/ProRes", {"profile": profile}, 31) for profile in ("hq", "standard", "lt")),
    *(("video/ProRes", {"profile": profile}, 45) for profile in ("4444", "4444xq")),
    ("video/ffv1-mkv", {"pix_fmt": "bgr0"}, math.inf),
    ("video/ffv1-mkv", {"pix_fmt": "gbrp16le"}, 58),  # what 16 bits lose when read as 8; exact below
    ("video/ffv1-mkv", {"pix_fmt": "yuv444p10le"}, 50),
    *(("image/gif", {"dither": dither}, 28) for dither in ("bayer", "sierra2_4a", "floyd_steinberg", "none")),
    ("image/webp", {}, 30.5),
    ("image/webp", {"quality": 100}, 31.5),
    ("image/webp", {"lossless": True}, math.inf),
]
NOTES = {
    "prompt": json.dumps(
        {"3": {"inputs": {"text": 'a "quoted" = red; circle # \\ moving\nleft\r\tü 日本 😀'}}}
    ),
    "workflow": "raw = [ü 日本 😀];#\\ \"x\" 'y'\nnext line\r\nand\\\nmore=;\n;FFMETADATA1\n[CHAPTER]\nend\\\n.",
}


def write(
    folder,
    clip,
    name="video/h264-mp4",
    rate=8.0,
    options=None,
    chunk=5,
    loops=0,
    pingpong=False,
    metadata=None,
    **job,
):
    encoding = parse_encoding(name, rate, options, loops, pingpong)
    notes = Notes(metadata or {}, {})
    with VideoWriter(Job(folder, "clip", encoding, notes=notes, **job)) as writer:
        for part in clip.split(chunk):
            writer.write(part)
    return writer


def only_file(folder):
    (found,) = list(folder.iterdir())
    return found


@pytest.mark.parametrize(("name", "options", "least"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_pictures_come_back(tmp_path, name, options, least):
    clip = make_clip()
    writer = write(tmp_path, clip, name, options=options)
    assert only_file(tmp_path) == writer.path
    assert writer.path.name == f"clip_00001_{find_format(name).suffix}"
    frames = list(read_frames(writer.path))
    assert len(frames) == writer.num_frames == 17
    assert psnr(frames, as_bytes(clip)) >= least


@pytest.mark.parametrize("name", [entry.name for entry in SOFTWARE])
@pytest.mark.parametrize("frames", [1, 2])
def test_shortest_clips(tmp_path, name, frames):
    clip = make_clip(frames)
    assert len(list(read_frames(write(tmp_path, clip, name).path))) == frames


@pytest.mark.parametrize("name", [entry.name for entry in SOFTWARE])
def test_stills_keep_their_length(tmp_path, name):
    writer = write(tmp_path, make_clip(1).repeat(9, 1, 1, 1), name)
    assert writer.num_frames == 9
    assert inspect(writer.path).num_frames == (1 if "webp" in name else 9)


RATES = {
    0.5: Fraction(1, 2),
    8.0: Fraction(8),
    23.976: Fraction(2997, 125),
    29.97: Fraction(2997, 100),
    59.94: Fraction(2997, 50),
    119.88: Fraction(2997, 25),
    24000 / 1001: Fraction(24000, 1001),
    30000 / 1001: Fraction(30000, 1001),
    60000 / 1001: Fraction(60000, 1001),
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", ["video/h264-mp4", "video/webm", "video/ProRes", "video/ffv1-mkv"])
def test_clips_play_at_the_rate_asked_for(tmp_path, name, rate):
    """Exactly, but for Matroska's nanoseconds; half of the clips with sound, which is a second run."""
    sound = tone(0.2) if rate > 25 else None
    found = inspect(write(tmp_path, make_clip(10, 16, 16), name, rate, audio=sound).path)
    nanoseconds = 10 if find_format(name).tags == "matroska" else 0
    assert abs(found.seconds - 10 / RATES[rate]) <= Fraction(nanoseconds, 10**9)


@pytest.mark.parametrize("rate", [54.99825, 178.997, 239.004])
@pytest.mark.parametrize("name", ["video/webm", "video/ffv1-mkv"])
def test_a_rate_that_the_reader_rounds_costs_no_clip(tmp_path, name, rate):
    """Of rates with large parts PyAV tells up to 1.7e-5 of their value another one."""
    found = inspect(write(tmp_path, make_clip(4, 16, 16), name, rate).path)
    assert abs(float(found.seconds) - 4 / rate) <= 2e-5 * 4 / rate


@pytest.mark.parametrize("rate", [8.0, 23.976, 29.97, 24000 / 1001, 30000 / 1001])
@pytest.mark.parametrize(("name", "tick", "frames"), [("image/gif", 100, 700), ("image/webp", 1000, 300)])
def test_pictures_play_as_exactly_as_their_ticks_allow(tmp_path, name, tick, frames, rate):
    """So many frames that a rate off by one thousandth is more than two ticks away at the end."""
    noise = torch.rand(frames, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    found = inspect(write(tmp_path, noise, name, rate, chunk=frames).path)
    assert found.num_frames == frames
    assert abs(found.seconds - frames / RATES[rate]) <= Fraction(2, tick)


def test_a_rate_off_by_a_thousandth_is_caught():
    for name in ("video/h264-mp4", "video/webm"):
        encoding, near = parse_encoding(name, 23.976), parse_encoding(name, 24000 / 1001)
        found = Contents(10, 64, 64, 10 / near.frame_rate, "yuv420p")
        verify(found, near, 10, 64, 64, Fraction(0))
        with pytest.raises(VideoError, match="was to play 0.4170838 s and plays 0.4170833 s"):
            verify(found, encoding, 10, 64, 64, Fraction(0))


def test_a_webp_may_merge_frames_and_never_gains_any():
    encoding = parse_encoding("image/webp", 8)
    for held in (1, 7, 8):
        verify(Contents(held, 64, 64, Fraction(1), ""), encoding, 8, 64, 64, Fraction(0))
    for held in (0, 9):
        with pytest.raises(VideoError, match=f"8 frames of 64x64 were written, {held} frames"):
            verify(Contents(held, 64, 64, Fraction(1), ""), encoding, 8, 64, 64, Fraction(0))


def test_mp4_says_how_its_colours_are_meant(tmp_path):
    with av.open(str(write(tmp_path, make_clip(3)).path)) as container:
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)  # BT.709, limited


def test_16_bits_survive_in_ffv1(tmp_path):
    clip = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    path = write(tmp_path, clip, "video/ffv1-mkv", options={"pix_fmt": "gbrp16le"}).path
    with av.open(str(path)) as container:
        frames = [frame.reformat(format="rgb48le").to_ndarray() for frame in container.decode(video=0)]
    assert np.array_equal(frames, (clip * 65535).round().numpy().astype(np.uint16))


def test_bytes_floats_and_halves_give_the_same_file(tmp_path):
    pixels = torch.from_numpy(as_bytes(make_clip(3)))
    kinds = {"uint8": pixels, "float32": pixels / 255, "float64": pixels.double() / 255}
    files = [write(tmp_path, clip, "video/ffv1-mkv", chunk=2).path.read_bytes() for clip in kinds.values()]
    assert files[0][1000:] == files[1][1000:] == files[2][1000:]


def test_values_round_to_nearest_and_overshoot_is_cut():
    frame = torch.tensor([[[0.0, 1.0, 0.5]], [[-0.3, 1.2, 0.999]]])
    assert to_pixels(frame, 0, deep=False).tolist() == [[[0, 255, 128]], [[0, 255, 255]]]
    assert to_pixels(torch.full((1, 1, 3), 200, dtype=torch.uint8), 0, deep=True)[0, 0, 0] == 200 * 257


@pytest.mark.parametrize("name", ["video/h264-mp4", "video/ffv1-mkv", "image/gif", "image/webp"])
def test_pingpong_comes_back(tmp_path, name):
    options = {"lossless": True} if name == "image/webp" else {}
    clip = make_clip(6)
    writer = write(tmp_path, clip, name, options=options, pingpong=True, chunk=4)
    frames, there = np.stack(list(read_frames(writer.path))), as_bytes(clip)
    wanted = np.concatenate([there, there[4:0:-1]])
    assert writer.num_frames == len(frames) == 10
    assert psnr(frames, wanted) >= (math.inf if "ffv1" in name or "webp" in name else 26)


def test_repeats_are_written_out_in_videos(tmp_path):
    clip = make_clip(4)
    writer = write(tmp_path, clip, "video/ffv1-mkv", loops=2, pingpong=True)
    there = as_bytes(clip)
    once = np.concatenate([there, there[2:0:-1]])
    assert np.array_equal(list(read_frames(writer.path)), np.concatenate([once] * 3))


@pytest.mark.parametrize(("name", "said"), [("image/gif", [0, 3]), ("image/webp", [0, 4])])
def test_repeats_are_a_number_in_pictures(tmp_path, name, said):
    """A gif counts repeats, a webp counts showings; 0 is forever in both."""
    found = []
    for loops in (0, 3):
        with Image.open(write(tmp_path, make_clip(4), name, loops=loops).path) as picture:
            found.append(picture.info["loop"])
    assert found == said


def tone(seconds, channels=2, rate=44100):
    time = torch.arange(int(seconds * rate)) / rate
    return Audio(0.5 * torch.sin(2 * math.pi * 440 * time).repeat(channels, 1), rate)


@pytest.mark.parametrize("name", [entry.name for entry in LOUD])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.0])
def test_sound_is_as_long_as_the_clip(tmp_path, name, seconds):
    writer = write(tmp_path, make_clip(16), name, audio=tone(seconds))
    found = inspect(writer.path)
    assert found.num_frames == 16
    assert found.audio_samples / found.audio_rate == pytest.approx(2.0, abs=0.06)


@pytest.mark.parametrize("name", [entry.name for entry in LOUD])
def test_clip_ends_with_the_sound(tmp_path, name):
    writer = write(tmp_path, make_clip(16), name, audio=tone(0.8), trim_to_audio=True)
    assert writer.num_frames == inspect(writer.path).num_frames == 7  # 0.8 s at 8 a second, rounded up
    assert not any(tmp_path.glob(".*"))


def test_sound_longer_than_the_clip_does_not_lengthen_it(tmp_path):
    assert write(tmp_path, make_clip(8), audio=tone(9), trim_to_audio=True).num_frames == 8


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", ["video/h264-mp4", "video/webm", "video/ffv1-mkv", "video/ProRes"])
def test_channels_and_their_content_survive(tmp_path, name, channels):
    path = write(tmp_path, make_clip(8), name, audio=tone(1, channels)).path
    with av.open(str(path)) as container:
        floats = av.AudioResampler(format="flt")
        sound = [part.to_ndarray() for frame in container.decode(audio=0) for part in floats.resample(frame)]
        assert container.streams.audio[0].codec_context.channels == channels
    loudness = np.sqrt(np.mean(np.concatenate(sound, axis=1) ** 2))
    lost = 1 if channels < 6 else math.sqrt(5 / 6)  # lossy encoders keep only the bass of channel 4
    assert loudness == pytest.approx(0.5 / math.sqrt(2) * lost, rel=0.12)


@pytest.mark.parametrize(
    ("waveform", "rate"),
    [
        (torch.zeros(2, 0), 44100),
        (torch.zeros(100), 44100),
        (torch.zeros(9, 100), 44100),
        (torch.zeros(1, 100), 0),
        (torch.full((1, 100), math.nan), 44100),
        (torch.full((1, 100), math.inf), 44100),
    ],
)
def test_bad_sound_is_refused(waveform, rate):
    with pytest.raises(VideoError, match="audio"):
        Audio(waveform, rate)


@pytest.mark.parametrize("name", ["image/gif", "image/webp"])
def test_pictures_refuse_sound_before_anything_is_written(tmp_path, name):
    with pytest.raises(VideoError, match="holds no sound.*video/h264-mp4"):
        write(tmp_path, make_clip(2), name, audio=tone(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("entry", SOFTWARE, ids=lambda entry: entry.name)
@pytest.mark.parametrize("loud", [False, True])
def test_the_workflow_survives_word_for_word(tmp_path, entry, loud):
    audio = tone(1) if loud and entry.audio else None
    path = write(tmp_path, make_clip(4), entry.name, metadata=NOTES, audio=audio).path
    assert {key: read_metadata(path, entry)[key] for key in NOTES} == NOTES
    assert len(list(read_frames(path))) == 4


@pytest.mark.parametrize("entry", SOFTWARE, ids=lambda entry: entry.name)
def test_a_huge_workflow_survives(tmp_path, entry):
    notes = {"prompt": json.dumps({"x": 1}), "workflow": json.dumps({"nodes": ["ü=;#\\\n" * 100] * 1000})}
    path = write(tmp_path, make_clip(2), entry.name, metadata=notes).path
    assert read_metadata(path, entry)["workflow"] == notes["workflow"]
    assert len(notes["workflow"]) > 1_000_000


def test_webp_keeps_the_workflow_where_comfyui_looks_for_it(tmp_path):
    path = write(tmp_path, make_clip(2), "image/webp", metadata=NOTES).path
    with Image.open(path) as picture:
        exif = picture.getexif()
    assert exif[0x0110].startswith("prompt:{") and exif[0x010F].startswith("workflow:raw")


def test_a_still_webp_keeps_the_workflow_too(tmp_path):
    path = write(tmp_path, make_clip(1), "image/webp", metadata=NOTES).path
    assert read_metadata(path, find_format("image/webp")) == NOTES


def test_without_metadata_nothing_is_told(tmp_path):
    for entry in SOFTWARE:
        assert not {"prompt", "workflow", "comment"} & set(
            read_metadata(write(tmp_path, make_clip(2), entry.name).path, entry)
        )


def test_files_are_never_replaced(tmp_path):
    taken = tmp_path / "clip_00001_.mp4"
    taken.write_text("precious")
    paths = [write(tmp_path, make_clip(2)).path.name for _ in range(3)]
    assert (
        paths == ["clip_00002_.mp4", "clip_00003_.mp4", "clip_00004_.mp4"] and taken.read_text() == "precious"
    )


def test_strange_folder_names_are_just_names(tmp_path):
    folder = tmp_path / "-i http:%d ünï'\" [x]"
    folder.mkdir()
    for entry in SOFTWARE:
        assert write(folder, make_clip(2), entry.name, metadata=NOTES).path.exists()


def test_files_can_be_read_by_everyone_that_the_user_allows(tmp_path):
    mode = write(tmp_path, make_clip(2)).path.stat().st_mode & 0o777
    (tmp_path / "plain").touch()
    assert mode == (tmp_path / "plain").stat().st_mode & 0o777


MEASURE = """
import re, runpy, sys, torch
from pathlib import Path
runpy.run_path(sys.argv[1])["register"]()
from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.writer import Job, VideoWriter

def peak(pid):
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path(f"/proc/{pid}/status").read_text())[1])

name = sys.argv[3]
ramp = torch.linspace(0, 1, 128 * 192 * 3).view(1, 128, 192, 3)
with VideoWriter(Job(Path(sys.argv[2]), "x", parse_encoding(name, 8, pingpong=True))) as writer:
    for index in range(240):
        writer.write((ramp + index / 50) % 1)
        if index in (79, 239):
            print(peak("self"), peak(writer._encoder.pid))
print(peak("self"), 0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("name", ["video/h264-mp4", "image/gif"])
def test_memory_does_not_grow_with_the_clip(tmp_path, name):
    """160 more frames, kept for the way back too, would be 11 MiB as bytes and 45 MiB as floats."""
    pack = sys.modules["kinetograph"].__path__[0] + "/tools/pack.py"
    command = [sys.executable, "-c", MEASURE, pack, str(tmp_path), name]
    done = subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    short, long, end = ([int(word) / 1024 for word in line.split()] for line in done.stdout.splitlines())
    assert long[0] - short[0] < 4 and end[0] - short[0] < 16, (short, long, end)  # the end decodes as well
    assert long[1] - short[1] < 8, (short, long, end)


def test_lengths_are_exact_fractions():
    assert tone(0.5).seconds == Fraction(1, 2)
