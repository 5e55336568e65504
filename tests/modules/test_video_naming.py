"""What people type as a name: dates and widget values are filled in, percent signs stay what they are."""

from datetime import datetime

import pytest

from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.naming import check_prefix, fill_prefix

NOW = datetime(2026, 3, 9, 4, 5, 6)
PROMPT = {
    "1": {
        "class_type": "KSampler",
        "inputs": {"seed": 7, "cfg": 6.5, "model": ["2", 0]},
        "_meta": {"title": "Base"},
    },
    "2": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": 'a/b: "c" 50%\n*'},
        "_meta": {"title": "v1.5 text"},
    },
    "3": {"class_type": "Combine", "inputs": {"format": "x/y", "format.crf": 19}},
    "4": {"class_type": "Twin", "inputs": {"seed": 1}, "_meta": {"title": "Same"}},
    "5": {"class_type": "Twin", "inputs": {"seed": 1, "only": True}, "_meta": {"title": "Same"}},
    "6": {
        "class_type": "Other",
        "inputs": {"text": ". - " + "é" * 300 + " ."},
        "_meta": {"title": "KSampler"},
    },
}
FILLED = {
    "plain/name": "plain/name",
    "%date:yyyy-MM-dd%/clip": "2026-03-09/clip",
    "%date:yy_M_d h.m.s%": "26_3_9 4.5.6",
    "%date:yyyy/MM%/%date:hhmmss%": "2026/03/040506",
    "%date:hh:mm%": "04_05",
    "%date:yyyMy%": "yyy3y",
    "%Base.seed%_%Base.cfg%": "7_6.5",
    "%KSampler.seed%": "7",  # a class, for the node of that title has no such widget
    "%v1.5 text.text%": "a_b_ _c_ 50___",
    "%Combine.format.crf%-%Combine.format%": "19-x_y",
    "%Same.only%": "True",
    "%KSampler.text%": "é" * 28,
    "%year%-%month%-%day%_%width%x%height%": "%year%-%month%-%day%_%width%x%height%",
    "50% off": "50% off",
    "100%": "100%",
    "100% a.b 20%": "100% a.b 20%",
    "5%6.7%8": "5%6.7%8",
    "50% %date:dd%%": "50% 09%",
    "%%": "%%",
    "a\\b\\%date:dd%": "a/b/09",
}
REFUSED_AT_THE_POST = [
    "%yaer%", "%date%", "%Date:yyyy%x%date:%", "%date:%", "%date:--%", "x/%seed%", "%YEAR%", "%a b.c%/../x", "..\\x",
]  # fmt: skip
REFUSED_WHEN_RUN = {
    "%Nobody.seed%": "%Nobody.seed% fits no node of this prompt",
    "%Base.nothing%": "%Base.nothing% fits no node of this prompt",
    "%Same.seed%": "%Same.seed% fits 2 nodes of this prompt",
    "%Twin.seed%": "%Twin.seed% fits 2 nodes of this prompt",
    "%Base.model%": "comes from another node",
}


@pytest.mark.parametrize("prefix", FILLED, ids=ascii)
def test_names_are_filled_in(tmp_path, prefix):
    check_prefix(prefix, tmp_path)
    assert fill_prefix(prefix, PROMPT, NOW, tmp_path) == FILLED[prefix]


@pytest.mark.parametrize("prefix", REFUSED_AT_THE_POST, ids=ascii)
def test_what_looks_like_a_token_and_is_none_is_refused_at_the_post(tmp_path, prefix):
    with pytest.raises(VideoError, match="filename_prefix .* cannot be used"):
        check_prefix(prefix, tmp_path)


@pytest.mark.parametrize("prefix", REFUSED_WHEN_RUN, ids=ascii)
def test_a_token_of_no_or_several_nodes_is_refused(tmp_path, prefix):
    check_prefix(prefix, tmp_path)
    with pytest.raises(VideoError) as refused:
        fill_prefix(prefix, PROMPT, NOW, tmp_path)
    assert REFUSED_WHEN_RUN[prefix] in str(refused.value)


def test_the_words_say_what_may_be_written(tmp_path):
    with pytest.raises(VideoError, match="%yaer% looks like a value to fill in.*%date:yyyy-MM-dd%.*%year%"):
        check_prefix("%yaer%", tmp_path)


def test_what_is_filled_in_must_be_a_name_too(tmp_path):
    values = {
        "1": {"class_type": "N", "inputs": {"v": "N", "long": "x" * 999, "dots": "..", "up": "../../etc"}}
    }
    assert fill_prefix("%N.dots%", values, NOW, tmp_path) == "_"
    assert fill_prefix("%N.up%/x", values, NOW, tmp_path) == "_.._etc/x"
    assert fill_prefix("%N.long%", values, NOW, tmp_path) == "x" * 60
    with pytest.raises(VideoError, match="longer than 200 bytes"):
        fill_prefix("%N.long%" * 4, values, NOW, tmp_path)
    with pytest.raises(VideoError, match="device on Windows"):
        fill_prefix("CO%N.v%", values, NOW, tmp_path)


def test_a_link_out_of_the_folder_is_found_behind_a_token(tmp_path):
    output, outside = tmp_path / "output", tmp_path / "outside"
    output.mkdir(), outside.mkdir()
    (output / "2026").symlink_to(outside)
    with pytest.raises(VideoError, match="link leads out"):
        fill_prefix("%date:yyyy%/x", {}, NOW, output)


def test_linked_prefixes_get_the_rules_of_typed_ones(tmp_path):
    for prefix in ("", "../up", "/abs", "a/.b"):
        with pytest.raises(VideoError, match="cannot be used"):
            fill_prefix(prefix, {}, NOW, tmp_path)
