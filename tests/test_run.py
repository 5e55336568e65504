"""`dev.py run`, as far as it needs no ComfyUI: what a setting means, and what hangs on a choice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kinetograph.tools import choices, prompts, run, settings
from kinetograph.tools.commands import Trouble

ROOT = Path(__file__).resolve().parents[1]
TWO_FORMATS = {
    "gif": {"required": {"dither": [["none", "bayer"], {}], "colours": ["INT", {"default": 64}]}},
    "mp4": {
        "required": {"crf": ["INT", {"default": 19}], "sound": ["BOOLEAN", {}], "images": ["IMAGE", {}]},
        "optional": {"gain": ["FLOAT", {"default": 0.5}], "pix": ["COMBO", {"options": ["420", "444"]}]},
    },
}
TWO_FORMATS["mp4"]["optional"]["speed"] = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "options": [
            {"key": "auto", "inputs": {"required": {}}},
            {"key": "fixed", "inputs": {"required": {"threads": ["INT", {"default": 2}]}}},
        ]
    },
]
SCHEMAS = {
    "KinetographSaver": {
        "input": {
            "required": {
                "format": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {"options": [{"key": key, "inputs": inputs} for key, inputs in TWO_FORMATS.items()]},
                ],
                "prefix": ["STRING", {}],
            }
        }
    }
}


@pytest.fixture
def graph():
    def node(kind, title=None, **inputs):
        return {"class_type": kind, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}

    return {
        "1": node("CLIPTextEncode", "Prompt", text="a circle", clip=["9", 0]),
        "2": node("CLIPTextEncode", "Negative prompt", text=""),
        "3": node("KinetographVideoSampler", "v1.5 = sampler", seed=1, cfg=2.0, preview=True),
        "4": node("KinetographSaver", format="mp4", **{"format.crf": 19, "format.gain": 0.25}, prefix="a"),
        "5": node("LoadImage", "Picture", image="kinetograph_first_frame.png"),
        "6": node("LoadVideo", "Clip", file="kinetograph_clip.mp4"),
    }


@pytest.mark.parametrize(
    ("wish", "node", "widget", "value"),
    [
        ("Prompt.text=a = b", "1", "text", "a = b"),
        ("negative PROMPT.text=", "2", "text", ""),
        ("1.text=x.y", "1", "text", "x.y"),
        ("VideoSampler.seed=18446744073709551615", "3", "seed", 2**64 - 1),
        ("KinetographVideoSampler.seed= 7 ", "3", "seed", 7),
        ("3.cfg=6", "3", "cfg", 6.0),
        ("3.cfg=-1e-1", "3", "cfg", -0.1),
        ("3.preview=off", "3", "preview", False),
        ("3.preview=True", "3", "preview", True),
        ("Saver.format.crf=3", "4", "format.crf", 3),
        ("Saver.format=gif", "4", "format", "gif"),
    ],
)
def test_a_widget_gets_a_value_of_its_kind(graph, wish, node, widget, value):
    before = json.loads(json.dumps(graph))
    settings.apply(graph, settings.read(graph, wish))
    before[node]["inputs"][widget] = value
    assert graph == before and type(graph[node]["inputs"][widget]) is type(value)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("Prompt.text", "Node.widget=value"),
        ("Prompt=a circle", "Node.widget=value"),
        ("Sampler.seed=3", r"(?s)'Sampler'.*1 \(Prompt, CLIPTextEncode\)\n.*\n  3 \(v1.5 = sampler, Kinet"),
        ("CLIPTextEncode.text=x", r"1 \(Prompt, CLIPTextEncode\), 2 \(Negative prompt, .*by its number"),
        ("Prompt.txet=x", r"no widget 'txet'.*There are: text\."),
        ("Prompt.clip=x", r"clip of 1 .* no value .* it comes from 9\."),
        ("3.seed=1.5", "seed of 3 .* whole number: got '1.5'"),
        ("3.seed=", "whole number: got ''"),
        ("3.cfg=much", "a number: got 'much'"),
        ("3.cfg=nan", "a number: got 'nan'"),
        ("3.preview=maybe", "true or false: got 'maybe'"),
        ("3.seed.x=1", r"no widget 'seed.x'"),  # a number has no options
        ("Picture.image=none.png", "no file at none.png"),
        ("Picture.image=http://example.com/a.png", "only https"),
        ("Picture.image=file:/etc/passwd", "only https"),
        ("Clip.file=ftp://example.com/a.mp4", "only https"),
    ],
)
def test_what_a_prompt_does_not_have_is_refused(graph, wish, words, tmp_path):
    (tmp_path / "prompt.json").write_text(json.dumps(graph))
    with pytest.raises(Trouble, match=words):
        run.plan(str(tmp_path / "prompt.json"), [wish], tmp_path / "output", never)
    assert not (tmp_path / "output").exists()


def never(host, port):
    pytest.fail("nothing was to be fetched")


def test_a_node_may_be_called_like_an_equals_sign(graph):
    """The first sign of equality ends the place: such a node is called by its number or class."""
    with pytest.raises(Trouble, match="No node is called 'v1'"):
        settings.read(graph, "v1.5 = sampler.seed=3")


def test_files_are_laid_beside_the_prompt_once_each(graph, tmp_path):
    mine = tmp_path / "kinetograph_clip.mp4"
    mine.write_bytes(b"a clip")
    (tmp_path / "prompt.json").write_text(json.dumps(graph))
    wishes = [f"Clip.file={mine}", "Picture.image=kinetograph_last_frame.png"]
    job = run.plan(str(tmp_path / "prompt.json"), wishes, tmp_path, never)
    assert job.inputs == {"kinetograph_clip_2.mp4": mine}  # one of that name is there
    assert job.graph["6"]["inputs"]["file"] == "kinetograph_clip_2.mp4"
    assert job.graph["5"]["inputs"]["image"] == "kinetograph_last_frame.png"


def settle(graph, *wishes):
    found = [settings.read(graph, wish) for wish in wishes]
    for one in found:
        settings.apply(graph, one)
    choices.settle(graph, found, SCHEMAS)
    return graph["4"]["inputs"]


def test_a_choice_brings_its_options_and_takes_the_others_away(graph):
    assert settle(graph, "Saver.format=gif") == {
        "format": "gif",
        "format.dither": "none",
        "format.colours": 64,
        "prefix": "a",
    }


def test_options_that_did_not_stand_are_set_in_their_kind(graph):
    wishes = ["Saver.format.sound=yes", "Saver.format.pix=444", "Saver.format.speed=fixed"]
    assert settle(graph, *wishes, "Saver.format.speed.threads=8") == {
        "format": "mp4",
        "format.crf": 19,
        "format.gain": 0.25,
        "format.sound": True,
        "format.pix": "444",
        "format.speed": "fixed",
        "format.speed.threads": 8,
        "prefix": "a",
    }


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (
            ["Saver.format=gif", "Saver.format.crf=3"],
            "format.crf does not belong to format=gif. .*format.dither",
        ),
        (["Saver.format.cfr=3"], "format.cfr does not belong to format=mp4"),
        (["Saver.format=gif", "Saver.format.colours=many"], "format.colours is a whole number"),
        (["Saver.prefix.x=3"], "prefix of node 4 is no choice"),
    ],
)
def test_options_of_another_choice_are_refused(graph, wishes, words):
    with pytest.raises(Trouble, match=words):
        settle(graph, *wishes)


def test_options_of_a_choice_that_stands_are_kept(graph):
    assert settle(graph, "Saver.format=mp4", "Saver.prefix=b")["format.gain"] == 0.25


def test_a_new_choice_begins_with_its_defaults(graph):
    graph["4"]["inputs"] |= {"format": "gif", "format.colours": 3}
    assert settle(graph, "Saver.format=mp4", "Saver.format.crf=3") == {
        "format": "mp4",
        "format.crf": 3,
        "format.gain": 0.5,
        "format.sound": False,
        "format.pix": "420",
        "format.speed": "auto",
        "prefix": "a",
    }


def test_a_value_that_is_no_choice_is_left_to_the_server(graph):
    assert settle(graph, "Saver.format=avi")["format.crf"] == 19


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no prompt"),
        ('{"nodes": [], "links": []}', r"Export \(API\)"),
        (None, "no template and no file called .*Templates are: .*, "),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, text, words):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Trouble, match=words):
        prompts.read(str(path))


def test_every_template_is_known_by_its_name():
    names = [path.stem for path in (ROOT / "workflows" / "api").glob("*.json")]
    assert len(names) > 30 and all(prompts.read(name) for name in names)


def test_the_command_says_what_is_wrong_before_it_sets_anything_up():
    done = subprocess.run(
        [sys.executable, ROOT / "dev.py", "run", "nothing", "--set", "a.b=c"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "no file called 'nothing'" in done.stderr and "Traceback" not in done.stderr
