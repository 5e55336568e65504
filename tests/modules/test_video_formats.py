"""What may be asked for: options, rates, sizes and names, and which encoders this computer has."""

import math
from fractions import Fraction
from pathlib import Path

import pytest

from kinetograph.modules.videofile import commands, probe
from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.formats import FORMATS, find_format
from kinetograph.modules.videofile.naming import check_prefix, prefix_problem
from kinetograph.modules.videofile.request import request_problem

NAMES = [entry.name for entry in FORMATS]
VHS_NAMES = {
    "image/gif", "image/webp", "video/h264-mp4", "video/h265-mp4", "video/webm", "video/av1-webm",
    "video/ProRes", "video/ffv1-mkv", "video/nvenc_h264-mp4", "video/nvenc_hevc-mp4", "video/nvenc_av1-mp4",
}  # fmt: skip
OURS = ["image/webp-alpha"]
BAD_VALUES = [
    None,
    -1,
    10**9,
    1.5,
    math.nan,
    math.inf,
    "",
    "19",
    "-y",
    "yuv420p;rm",
    "http://x",
    [1],
    {},
    b"hq",
]
OPTIONS = [(entry.name, option.name) for entry in FORMATS for option in entry.options]


def test_names_are_those_of_videohelpersuite():
    assert set(NAMES) - set(OURS) == VHS_NAMES and NAMES[0] == "video/h264-mp4" and NAMES[-1:] == OURS


@pytest.mark.parametrize("name", NAMES)
def test_defaults_fit_and_the_command_is_local(name):
    encoding = parse_encoding(name, 8)
    argv = commands.encode(encoding, 64, 64, None, Path("/x y:z/-out"))
    assert all(isinstance(word, str) and "\n" not in word for word in argv)
    assert argv.count("-protocol_whitelist") == 2 and argv[-1] == "file:/x y:z/-out"
    assert not any(word.startswith(("http", "ftp", "tcp")) for word in argv)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_bad_option_values_are_refused_by_name(name, option, value):
    with pytest.raises(VideoError, match=option):
        parse_encoding(name, 8, {option: value})


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_true_is_no_number_and_one_is_no_switch(name, option):
    wrong = 1 if option == "lossless" else True
    with pytest.raises(VideoError, match=option):
        parse_encoding(name, 8, {option: wrong})


def test_options_of_other_formats_are_refused():
    with pytest.raises(VideoError, match="no option 'crf'"):
        parse_encoding("image/gif", 8, {"crf": 19})


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1, 0, 0.01, 241, True, "8", None])
def test_bad_frame_rates_are_refused(rate):
    with pytest.raises(VideoError, match="frame_rate"):
        parse_encoding("video/webm", rate)


def test_gif_plays_at_most_50_frames_a_second():
    parse_encoding("image/gif", 50)
    with pytest.raises(VideoError, match="0.1 to 50"):
        parse_encoding("image/gif", 60)


def test_rates_are_exact():
    rates = {
        8: Fraction(8),
        23.976: Fraction(2997, 125),
        24000 / 1001: Fraction(24000, 1001),
        30000 / 1001: Fraction(30000, 1001),
        60000 / 1001: Fraction(60000, 1001),
        29.97: Fraction(2997, 100),
        59.94: Fraction(2997, 50),
        0.1: Fraction(1, 10),
    }
    assert {rate: parse_encoding("video/webm", rate).frame_rate for rate in rates} == rates


@pytest.mark.parametrize("loops", [-1, 101, 1.0, True, None, math.nan])
def test_bad_loop_counts_are_refused(loops):
    with pytest.raises(VideoError, match="loop_count"):
        parse_encoding("video/webm", 8, loop_count=loops)


@pytest.mark.parametrize("name", ["nope", "", None, "video/h264-mp4 ", "../video"])
def test_unknown_formats_list_the_known_ones(name):
    with pytest.raises(VideoError, match="video/h264-mp4, video/h265-mp4"):
        find_format(name)


def test_odd_sizes_name_the_nearest_even_ones():
    problem = find_format("video/h264-mp4").size_problem("yuv420p", 63, 48)
    assert "62x48 or 64x48" in problem
    assert find_format("video/h264-mp4").size_problem("yuv444p", 63, 47) is None
    assert "2x2" in find_format("video/h265-mp4").size_problem("yuv420p", 1, 1)


GOOD_PREFIXES = [
    "a",
    "video/Kinetograph",
    "My clip (2)",
    "ünïcode/日本",
    "a.b",
    "x" * 120,
    "%year%-%width%",
    "CONcert",
]
BAD_PREFIXES = [
    "", "/", "/abs", "a/", "a//b", "..", "../x", "a/../b", "a/..", ".hidden", "a/.b", "-rf", "a/-b", "..\\x",
    "C:x", "\\\\server\\share", "a\nb", "a\rb", "a\tb", "a\0b", "a\x1b[0m", "CON", "con", "a/NUL", "Aux.txt", "com1", "LPT9.mp4", "a.",
    "a ", " a", "a /b", "x" * 121, "é" * 61, "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a\u202eb", "a\u2028b",
    "\ud800", "~/.ssh\\x", "con .txt",
]  # fmt: skip


@pytest.mark.parametrize("prefix", GOOD_PREFIXES)
def test_good_prefixes_pass(prefix, tmp_path):
    check_prefix(prefix, tmp_path)


@pytest.mark.parametrize("prefix", BAD_PREFIXES, ids=ascii)
def test_bad_prefixes_are_refused_with_the_rules(prefix, tmp_path):
    with pytest.raises(VideoError, match="filename_prefix .* cannot be used: .* Please use up to 120 bytes"):
        check_prefix(prefix, tmp_path)


def test_every_control_character_is_refused():
    assert all(prefix_problem(f"a{chr(code)}b") for code in [*range(32), *range(127, 160)])


def test_links_out_of_the_output_folder_are_refused(tmp_path):
    output, outside = tmp_path / "output", tmp_path / "outside"
    output.mkdir(), outside.mkdir()
    (output / "away").symlink_to(outside)
    (output / "home").symlink_to(output)
    check_prefix("home/x", output)
    with pytest.raises(VideoError, match="link leads out"):
        check_prefix("away/x", output)


def test_output_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    check_prefix("a/b", tmp_path / "link")


def test_requests_with_linked_values_pass(tmp_path):
    linked = {"format": "video/h264-mp4", "crf": None, "pix_fmt": None}
    assert request_problem(linked, None, None, tmp_path) is None
    assert "format must be one of" in request_problem(None, 8.0, "a", tmp_path)
    assert "crf" in request_problem({"format": "video/h264-mp4", "crf": 99}, 8.0, "a", tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if "nvenc" not in name])
def test_every_software_encoder_works_here(name):
    probe.check_usable(name)


def test_missing_ffmpeg_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    probe.trial_of.cache_clear()
    with pytest.raises(VideoError, match="imageio-ffmpeg"):
        probe.check_usable("image/gif")
    probe.trial_of.cache_clear()
