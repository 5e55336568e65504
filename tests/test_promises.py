"""What the documents behind this pack promise, row by row: where each is shown, and the numbers they name."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAST_ROW = 79
SHOWN = {
    *range(1, 36),
    *range(38, 51),
    *(54, 55, 57, 58),
    *range(60, 80),
}  # rows whose family is complete; each later family adds its own
CONDITIONING, SAMPLER = "KinetographSVDConditioning", "KinetographVideoSampler"
LATENT, SAVER = "KinetographVideoLatent", "KinetographVideoCombine"
STREAM = "KinetographVAEDecodeToVideo"
MP4 = {"format": "video/h264-mp4"}
NATIVE = {"width": 0, "height": 0}  # the model's own size
# EasyAnimate's defaults: its gallery names sampler and seed
EASYANIMATE = {"seed": 43, "steps": 30, "guidance": "constant", "guidance.cfg": 6}
# row: (workflow, what its nodes of a kind are told); one of several nodes is enough
NUMBERS = {
    3: ("exvideo_image_to_128_frames", {CONDITIONING: {"fps": 30, "motion_bucket_id": 127}}),
    4: ("exvideo_image_to_128_frames", {SAMPLER: {"seed": 0}}),
    7: ("exvideo_image_to_128_frames", {SAVER: {"frame_rate": 30, **MP4}}),
    8: (
        "exvideo_text_to_129_frames",
        {
            LATENT: {**NATIVE, "num_frames": 0},  # 720x480 and 129 frames, as the LoRA's own test says
            SAMPLER: {"seed": 6, "steps": 100, "guidance": "constant", "guidance.cfg": 7},
            "CLIPTextEncode": {"text": "an astronaut riding a horse on Mars."},
        },
    ),
    10: (
        "exvideo_text_to_129_frames",
        {SAVER: {"frame_rate": 8, "format.crf": 25, **MP4}},
    ),  # quality=5 of imageio
    23: ("cogvideox_fun_video_to_video", {SAMPLER: {"denoise": 0.7}}),
    38: ("svd_image_to_video", {LATENT: {"num_frames": 14, **NATIVE}, SAVER: {"frame_rate": 7}}),
    46: ("svd_micro_conditioning", {CONDITIONING: {"motion_bucket_id": 180, "noise_aug_strength": 0.1}}),
    47: ("svd_xt_image_to_video", {SAVER: {"frame_rate": 7, **MP4}}),
    50: ("easyanimate_text_to_video", {STREAM: {"frame_rate": 12, **MP4}}),
    51: (
        "easyanimate_text_to_video",
        # 512x512 and 80 frames, as the motion module was trained
        {LATENT: {**NATIVE, "num_frames": 0}, SAMPLER: {"sampler_name": "dpmpp_2m", **EASYANIMATE}},
    ),
    52: (
        "easyanimate_portrait",
        {
            "KinetographPixArtLoader": {
                "personalized": "Personalized_Model/easyanimate_portrait.safetensors"
            },
            LATENT: {"width": 576, "height": 448, "num_frames": 0},
            SAMPLER: {"sampler_name": "euler_ancestral", **EASYANIMATE},
        },
    ),
    53: (
        "easyanimate_portrait_lora",
        {
            "KinetographLoRAStack": {"loras.strength_1": 0.55, "loras.text_strength_1": 0.55},
            LATENT: {**NATIVE, "num_frames": 64},
            SAMPLER: {"sampler_name": "euler_ancestral", **EASYANIMATE},
        },
    ),
    59: ("easyanimate_text_to_pictures", {SAVER: {"frame_rate": 12, "format": "image/gif"}}),
    77: (
        "animatediff_train_motion_lora",
        {"KinetographTrainVideoModel": {"part": "motion_lora", "steps": 2000}},
    ),
    73: (
        "animatediff_sdxl",
        {
            # 1024x1024 and 16 frames are the module's own
            LATENT: {**NATIVE, "num_frames": 0},
            SAMPLER: {"seed": 0, "steps": 100, "guidance": "constant", "guidance.cfg": 8.5},
            "CLIPTextEncode": {"text": ""},
            SAVER: {"frame_rate": 16, **MP4},
        },
    ),
}
NUMBERS[3][1][SAMPLER] = {
    "steps": 50,
    "guidance": "constant",  # the least and the largest scale are the same
    "guidance.cfg": 2,
    "long_clip": "on",
    "long_clip.equalise_frames": True,
    "long_clip.contrast_scale": 1.2,
}


def each_once(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"written twice: {keys}"
    return dict(pairs)


@pytest.fixture(scope="module")
def rows():
    """{row of the list of promises: what shows it}."""
    text = (ROOT / "tests" / "seed_rows.json").read_text(encoding="utf-8")
    return {int(row): shown for row, shown in json.loads(text, object_pairs_hook=each_once).items()}


def names_of_tests(path):
    """`name` and `Class::name` of every test that a file defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = [(f"{node.name}::", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        prefix + node.name
        for prefix, body in [("", tree.body), *inner]
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    }


def is_there(thing):
    """Whether a file, or a test in one (with or without the id of a case), exists."""
    file, _, test = thing.partition("::")
    path = ROOT / file
    if not test:
        return path.is_file() and path.suffix != ".py"
    return path.is_file() and path.name.startswith("test_") and test.partition("[")[0] in names_of_tests(path)


def test_rows_are_those_of_the_list(rows):
    assert SHOWN <= set(rows) <= set(range(1, LAST_ROW + 1))
    assert list(rows) == sorted(rows)
    assert [row for row, shown in rows.items() if not shown or len(shown) != len(set(shown))] == []


def test_what_shows_a_row_is_there(rows):
    assert [(row, thing) for row, shown in rows.items() for thing in shown if not is_there(thing)] == []


@pytest.mark.parametrize(
    "thing",
    [
        "tests/test_promises.py::test_nothing",
        "tests/test_promises.py::is_there",
        "tests/test_nothing.py::test_it",
        "tests/test_promises.py",  # no test is named
        "workflows/api",  # a folder
        "workflows/nothing.json",
    ],
)
def test_what_is_not_there_is_noticed(thing):
    assert not is_there(thing)


@pytest.mark.parametrize("row", NUMBERS)
def test_workflows_hold_the_numbers_promised(row):
    name, wanted = NUMBERS[row]
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for kind, numbers in wanted.items():
        told = [node["inputs"] for node in graph.values() if node["class_type"] == kind]
        assert any(inputs | numbers == inputs for inputs in told), told
