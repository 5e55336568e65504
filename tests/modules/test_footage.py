"""A user's own video as a stream: which frames, upright, at the right time, with their sound; and what breaks."""

import io
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest

from kinetograph.modules.videofile import footage, soundtrack
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.tests.films import SIZE, numbers, run_ffmpeg, shots, write


def take(source, start=0, step=None, count=0, window=()):
    film = footage.open_film(source, *window)
    times = footage.frame_times(film)
    first, there = footage.choose_span(times, film.rate, Fraction(start), step or 1 / film.rate, count)
    return list(footage.read_shots(footage.Shots(film, first, step or 1 / film.rate, there)))


@pytest.mark.parametrize(
    ("name", "rate", "codec"),
    [
        ("a.mp4", 24, "libx264rgb"),
        ("a.mkv", Fraction(30000, 1001), "libx264rgb"),
        ("a.mov", 60, "libx264rgb"),
        ("a.avi", 25, "ffv1"),
        ("a.ts", 25, "libx264rgb"),
        (None, 30, "libx264rgb"),
    ],
)
def test_every_frame_once_at_its_own_rate(tmp_path, name, rate, codec):
    """Also where times are rounded to milliseconds, missing, do not begin at zero, or the file is in memory."""
    target = tmp_path / name if name else io.BytesIO()
    ordered = codec == "ffv1" or name == "a.mkv"
    muxer = None if name else "matroska"
    source = write(target, shots(40), rate, codec=codec, muxer=muxer, b_frames=not ordered)
    assert footage.open_film(source).rate == pytest.approx(Fraction(rate), rel=1e-3)
    assert numbers(take(source)) == list(range(40))
    assert numbers(take(source, start=Fraction(17) / Fraction(rate), count=5)) == [17, 18, 19, 20, 21]


def test_frames_lie_in_another_order_than_they_are_shown(tmp_path):
    """What the tests here stand on: the encoder really made such files."""
    source = write(tmp_path / "a.mp4", shots(40), 24, b_frames=True)
    with av.open(source) as container:
        shown = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert shown != sorted(shown)
    assert footage.frame_times(footage.open_film(source)) == [Fraction(number, 24) for number in range(40)]


def test_frames_that_an_editor_cut_off_stay_away(tmp_path):
    """Cut without encoding anew, a file keeps frames from the last key frame on and says that they do not count."""
    write(tmp_path / "whole.mp4", shots(60), 20, gop=20, b_frames=True)
    cut = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "0.5", "-i", tmp_path / "whole.mp4", "-c", "copy", cut)
    raw = run_ffmpeg("-i", cut, "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, SIZE[1], SIZE[0], 3)
    assert len(shown) < 60 and np.array_equal(take(str(cut)), shown)


@pytest.mark.parametrize("wanted", [8, 10, 15, 16, 30, 48])
def test_another_rate_takes_the_nearest_frames(tmp_path, wanted):
    source = write(tmp_path / "a.mp4", shots(48), 24)
    got = numbers(take(source, step=Fraction(1, wanted)))
    shown = np.arange(48) / 24
    span = [abs(shown - k / wanted + 1e-9) for k in range(2 * wanted)]
    assert got == [int(np.argmin(gaps)) for gaps in span][: len(got)]
    assert len(got) == 2 * wanted


def test_variable_frame_rate_keeps_the_time(tmp_path):
    """A still of three seconds stays three seconds; frames that come fast are left out."""
    ticks = [0, 40, 80, 3080, 3090, 3100, 3140, 3180, 4000]
    source = write(tmp_path / "a.mkv", shots(9), 25, times=ticks, tick=Fraction(1, 1000))
    got = numbers(take(source, step=Fraction(1, 10), count=41))
    seconds = np.array(ticks) / 1000
    assert got == [int(np.argmin(abs(seconds - k / 10 + 1e-9))) for k in range(41)]
    assert got.count(2) > 10 and 4 not in got


def test_a_dropped_frame_is_the_one_before(tmp_path):
    """The file plays 24 frames a second, but for one; 40 frames in 41 / 24 s are no other rate."""
    ticks = [number + (number > 19) for number in range(40)]
    source = write(tmp_path / "a.mp4", shots(40), 24, times=ticks, tick=Fraction(1, 24))
    assert footage.open_film(source).rate == 24
    assert numbers(take(source)) == [*range(20), *range(19, 40)]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_a_start_between_key_frames(tmp_path, name):
    """Entered at the key frame before, with the frames that come in another order there."""
    source = write(tmp_path / name, shots(60), 20, gop=25, b_frames=True)
    whole = take(source)
    for start in (7, 24, 25, 26, 49, 59):
        got = take(source, start=Fraction(start, 20), count=3)
        assert numbers(got) == numbers(whole[start : start + 3])
        assert all(np.array_equal(*pair) for pair in zip(got, whole[start:], strict=False))


def test_a_trimmed_video_begins_and_ends_there(tmp_path):
    source = write(tmp_path / "a.mp4", shots(40), 20)
    assert numbers(take(source, window=(0.5, 1.0))) == list(range(10, 30))
    assert numbers(take(source, start=Fraction(1, 4), window=(0.5, 0))) == list(range(15, 40))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_video_of_a_turned_phone_is_upright(tmp_path, turn):
    """As ffmpeg turns it."""
    write(tmp_path / "flat.mp4", shots(5))
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", turn, "-i", tmp_path / "flat.mp4", "-c", "copy", turned)
    raw = run_ffmpeg("-i", turned, "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    width, height = SIZE if turn == 180 else SIZE[::-1]
    film = footage.open_film(str(turned))
    assert (film.width, film.height) == (width, height)
    assert np.array_equal(take(str(turned)), np.frombuffer(raw, np.uint8).reshape(5, height, width, 3))


def test_pixels_that_are_not_square(tmp_path):
    """4:3 pixels make a picture a third wider, which is how ffplay shows it."""
    write(tmp_path / "flat.mp4", shots(3))
    wide = tmp_path / "wide.mp4"
    run_ffmpeg("-i", tmp_path / "flat.mp4", "-aspect", "2", "-c", "copy", wide)
    film = footage.open_film(str(wide))
    assert (film.width, film.height) == (64, 32)
    (first, *_) = take(str(wide))
    assert first.shape == (32, 64, 3) and first[16, 32, 0] == 0 and first[0, -1, 0] == 80


def test_sound_of_the_same_seconds(tmp_path):
    rate = 8000
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 2 * rate)).astype(np.float32)
    source = write(tmp_path / "a.mkv", shots(40), 20, sound=(samples, rate, Fraction(0)))
    film = footage.open_film(source)
    assert film.has_sound
    got, got_rate = soundtrack.read_sound(film, Fraction(1, 2), Fraction(1, 4))
    assert got_rate == rate and got.shape == (2, rate // 4)
    assert np.array_equal(got, samples[:, rate // 2 : rate * 3 // 4])
    beyond, _ = soundtrack.read_sound(film, Fraction(15, 8), Fraction(1, 4))
    assert (
        np.array_equal(beyond[:, : rate // 8], samples[:, -rate // 8 :]) and not beyond[:, rate // 8 :].any()
    )


def test_sound_that_begins_late_is_silent_before(tmp_path):
    rate = 8000
    samples = np.ones((2, rate), np.float32)
    source = write(tmp_path / "a.mkv", shots(40), 20, sound=(samples, rate, Fraction(1, 2)))
    got, _ = soundtrack.read_sound(footage.open_film(source), Fraction(1, 4), Fraction(1, 2))
    assert not got[:, : rate // 4 - 8].any() and got[:, rate // 4 + 8 :].all()


def test_no_sound(tmp_path):
    film = footage.open_film(write(tmp_path / "a.mp4", shots(3)))
    assert not film.has_sound and soundtrack.read_sound(film, Fraction(0), Fraction(1)) is None


def test_no_pictures(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        piece.sample_rate = 8000
        container.mux(stream.encode(piece))
    with pytest.raises(VideoError, match="a.wav holds no pictures"):
        footage.open_film(str(path))


def test_files_that_are_no_video(tmp_path):
    noise = tmp_path / "a.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(VideoError, match="a.mp4 is damaged.*convert it") as caught:
        footage.open_film(str(noise))
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(VideoError, match="Cannot read b.mp4: it is not there"):
        footage.open_film(str(tmp_path / "b.mp4"))


def test_a_file_that_breaks_off(tmp_path):
    """Its index tells of 60 frames, and 30 or so are there."""
    source = write(
        tmp_path / "a.mp4", shots(60) ^ np.random.default_rng(0).integers(0, 2, (60, 32, 48, 3), np.uint8)
    )
    whole = open(source, "rb").read()
    start = whole.index(b"mdat")
    cut = len(whole) - (len(whole) - start) // 2
    if whole.index(b"moov") > start:
        run_ffmpeg("-i", source, "-c", "copy", "-movflags", "+faststart", tmp_path / "fast.mp4")
        whole = (tmp_path / "fast.mp4").read_bytes()
        start = whole.index(b"mdat")
        cut = start + (len(whole) - start) // 2
    (tmp_path / "cut.mp4").write_bytes(whole[:cut])
    with pytest.raises(VideoError, match="cut.mp4 (breaks off|is damaged)"):
        take(str(tmp_path / "cut.mp4"), count=60)


def test_a_start_behind_the_end(tmp_path):
    source = write(tmp_path / "a.mp4", shots(24))
    with pytest.raises(ValueError, match="1.00 s long.*no frame at start = 3 s.*earlier"):
        take(source, start=3)


def test_a_file_that_was_replaced_is_not_read(tmp_path):
    source = write(tmp_path / "a.mp4", shots(9))
    film = footage.open_film(source)
    write(tmp_path / "a.mp4", shots(12))
    with pytest.raises(VideoError, match="changed or removed"):
        footage.frame_times(film)


def test_a_long_film_needs_no_more_memory(tmp_path):
    """Held whole, 200 frames would be 88 MB."""
    source = write(tmp_path / "a.mp4", np.zeros((200, 384, 384, 3), np.uint8), gop=300)
    film, process, seen = footage.open_film(source), psutil.Process(), []
    for _ in footage.read_shots(footage.Shots(film, Fraction(0), 1 / film.rate, 200)):
        seen.append(process.memory_info().rss)
    assert len(seen) == 200 and max(seen[20:]) - seen[20] < 20 * 2**20
