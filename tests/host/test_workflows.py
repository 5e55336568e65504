"""Every shipped workflow runs on the real host as it is, with the pocket model, and keeps what it promises."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kinetograph.pocket import detector, inputs
from kinetograph.pocket.scenes import draw_scenes
from kinetograph.pocket.train_image import psnr
from kinetograph.tests import packs, tiny_pixart
from kinetograph.tests.host import motion_stand_ins, stand_ins
from kinetograph.tools import demo, prompts
from kinetograph.tools.server import Server

ROOT = Path(__file__).resolve().parents[2]
API = sorted((ROOT / "workflows" / "api").glob("*.json"))
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
STEPS = 2  # enough to go through every node; the demo runs them all
FEW = 4  # the steps of a distilled model are run as they are
SEGMENTS = 2  # of the 8 and 3 that workflows with Video Continue have
NOTES = ("MarkdownNote",)
BYPASSED = 4
BESIDE_A_SEED = ("fixed", "increment", "decrement", "randomize")  # a widget of the browser's own
# (frames, width, height) of every video and picture that a task makes with the pocket models, or with tiny ones.
MAKES = {
    "animatediff_adapter": [(16, 64, 64)],
    "animatediff_key_frames": [(16, 64, 64)],
    "animatediff_lightning": [(16, 64, 64)],
    "animatediff_loop": [(32, 64, 64)],
    "animatediff_motion_loras": [(16, 64, 64)],
    "animatediff_sdxl": [(16, 64, 64)],
    "animatediff_text_to_video": [(16, 64, 64)],
    "animatediff_train_motion_lora": [(16, 64, 64)],
    "animatediff_v3": [(16, 64, 64)],
    "animatelcm_svd_image_to_video": [(8, 128, 128)],
    "animatelcm_text_to_video": [(16, 64, 64)],
    "cogvideox_fun_control_video": [(17, 64, 64)],
    "cogvideox_fun_first_to_last_frame": [(17, 64, 64)],
    "cogvideox_fun_image_to_video": [(17, 64, 64)],
    "cogvideox_fun_inpaint_video": [(17, 64, 64)],
    "cogvideox_fun_long_video": [(30, 64, 64)],
    "cogvideox_fun_loop": [(26, 64, 64)],
    "cogvideox_fun_reward_lora": [(9, 64, 64)],
    "cogvideox_fun_text_to_video": [(17, 64, 64)],
    "cogvideox_fun_video_to_video": [(17, 64, 64)],
    "cogvideox_image_to_video": [(17, 64, 64)],
    "cogvideox_long_clip": [(65, 64, 64)],
    "cogvideox_text_to_video": [(17, 64, 64)],
    "cogvideox_text_to_video_4_steps": [(17, 64, 64)],
    "cogvideox_train_style_lora": [(17, 64, 64)],
    "cogvideox_video_to_video": [(17, 64, 64)],
    "easyanimate_portrait": [(6, 64, 64)],
    "easyanimate_portrait_lora": [(6, 64, 64)],
    "easyanimate_text_to_pictures": [(6, 64, 64), *[(1, 64, 64)] * 6],
    "easyanimate_text_to_video": [(6, 64, 64)],
    "exvideo_image_to_128_frames": [(16, 128, 128)],
    "exvideo_second_pass": [(16, 256, 256)],
    "exvideo_text_to_129_frames": [(33, 64, 64)],
    "exvideo_train_post_tuning": [(16, 128, 128)],
    "pixart_text_to_picture": [(1, 64, 64)],
    "svd_image_to_video": [(14, 128, 128)],
    "svd_micro_conditioning": [(8, 128, 128)] * 2,
    "svd_train_lora": [(8, 128, 128)],
    "svd_xt_image_to_video": [(8, 128, 128)],
    "try_animatediff": [(16, 64, 64)],
    "try_cogvideox": [(17, 64, 64)],
    "try_cogvideox_fun": [(17, 64, 64)],
    "try_cogvideox_image": [(17, 64, 64)],
    "try_easyanimate": [(16, 64, 64)],
    "try_exvideo": [(32, 128, 128)],
    "try_svd": [(8, 128, 128)],
    "try_train_style_lora": [(16, 64, 64)],
}
SEAMS = {  # how the seam report of a task starts
    "animatelcm_svd_image_to_video": "3 chunks of 4 frames, 2 blended: ",
    "try_exvideo": "3 chunks of up to 14 frames, 4 blended: ",
    "try_svd": "Decoded in one piece: ",
    "exvideo_image_to_128_frames": "2 chunks of up to 14 frames, 4 blended: ",
    "exvideo_second_pass": "3 chunks of up to 8 frames, 2 blended: ",
    "exvideo_train_post_tuning": "2 chunks of up to 14 frames, 4 blended: ",
    "svd_train_lora": "Decoded in one piece: ",
    "svd_xt_image_to_video": "Decoded in one piece: ",
    "cogvideox_fun_long_video": "Segment 1: ",
    "cogvideox_fun_loop": "Segment 1: ",
    "cogvideox_fun_reward_lora": "CogVideoX-Fun-V1.1-5b-InP-HPS2.1.safetensors: Fun, rank 4, alpha 2\n  model at 0.7: 45 modules: ",
    "cogvideox_text_to_video_4_steps": "TDM_CogVideoX-2B_LoRA.safetensors: PEFT, rank 4, no alpha (scale 1)\n  model at 1: 45 modules: ",
}
# Templates of files that have no pocket model: tiny ones lie under their names. Where the size is typed, a smaller one.
TINY_CLIP = {"width": tiny_pixart.SIZE, "height": tiny_pixart.SIZE, "num_frames": tiny_pixart.FRAMES}
SMALLER = {
    "animatediff_loop": {"num_frames": 32},
    "animatediff_sdxl": {"width": 64, "height": 64},
    "easyanimate_text_to_video": TINY_CLIP,
    "easyanimate_text_to_pictures": TINY_CLIP,
    "easyanimate_portrait": TINY_CLIP,
    "easyanimate_portrait_lora": TINY_CLIP,
    "cogvideox_fun_video_to_video": {"width": 64, "height": 64, "num_frames": 17},
    "cogvideox_long_clip": {"num_frames": 65},
    # the same graph as try_exvideo's, which has all 32
    "exvideo_image_to_128_frames": {"num_frames": 16},
    "exvideo_train_post_tuning": {"num_frames": 16},
    "pixart_text_to_picture": {**TINY_CLIP, "num_frames": 0},
    "cogvideox_fun_reward_lora": {"width": 64, "height": 64, "num_frames": 9},
}
# Trainings take small clips, one at a time, and little else
CLIPS = {
    "animatediff_train_motion_lora": {"width": 64, "height": 64, "frames": 8, "pace.stride": 1},
    "cogvideox_train_style_lora": {"width": 64, "height": 64, "frames": 9},
    "exvideo_train_post_tuning": {"width": 128, "height": 128, "frames": 4},
    "svd_train_lora": {"width": 128, "height": 128, "frames": 4},
}
BRIEF = {"steps": 2, "learning.batch": 1, "samples": "off"}
TYPED = {
    "animatediff_loop": [0, 0, 64],
    "cogvideox_long_clip": [0, 0, 169],
    # sizes of EasyAnimate's gallery: width, height, frames
    "easyanimate_text_to_pictures": [448, 640, 0],
    "easyanimate_portrait": [576, 448, 0],
    "easyanimate_portrait_lora": [0, 0, 64],
    "svd_image_to_video": [0, 0, 14],
    "try_easyanimate": [64, 64, 16],
    "cogvideox_fun_reward_lora": [512, 512, 49],
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pocket(host, tmp_path_factory):
    """A server with what takes the place of published files; the pocket models are the pack's own."""
    import sys

    base = tmp_path_factory.mktemp("pocket")
    arguments = packs.link(base)
    stand_ins.write_samples(base / "input")
    stand_ins.write(base / "models")
    with Server(Path(sys.executable), host, base, arguments=arguments) as server:
        yield server


def test_the_folders_that_readme_names_are_there_after_the_first_start(pocket):
    named = set(re.findall(r"`models/(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    ours = {path.name for path in demo.MODELS.iterdir()}
    easyanimate = {"Diffusion_Transformer", "Motion_Module", "Personalized_Model"}
    others = {"CogVideo", "SD", "SVD", "animatediff_models", "animatediff_motion_lora"}
    assert ours == others | easyanimate and ours <= named
    assert {path.name for path in (pocket.base / "models").iterdir() if path.is_dir()} >= ours


def test_there_is_one_workflow_per_task_in_both_forms():
    assert [path.stem for path in API] == list(MAKES)
    assert [path.stem for path in TEMPLATES] == list(MAKES)
    assert [path.stem for path in TEMPLATES if not path.with_suffix(".jpg").exists()] == []


# 128 frames take long, and so does SVD with all its steps: once is enough
LONG = {
    path: pytest.mark.newest
    for path in API
    if path.stem.startswith(("exvideo", "animatelcm_svd", "svd_train", "try_exvideo"))
}


@pytest.mark.parametrize("path", [pytest.param(path, marks=LONG.get(path, ()), id=path.stem) for path in API])
def test_api_prompt_runs_as_it_is(pocket, path):
    graph = motion_stand_ins.with_pocket_sd(read(path))
    for sampler in prompts.nodes_of(graph, "KinetographVideoSampler"):
        if sampler["inputs"]["steps"] > FEW:
            sampler["inputs"]["steps"] = STEPS
    for long in prompts.nodes_of(graph, "KinetographVideoContinue"):
        long["inputs"] |= {"sampling.steps": STEPS, "plan.segments": SEGMENTS}
    for kind in ("KinetographVideoLatent", "KinetographFitVideo"):
        for sized in prompts.nodes_of(graph, kind):
            sized["inputs"].update(SMALLER.get(path.stem, {}))
    for trained in prompts.nodes_of(graph, "KinetographTrainVideoModel"):
        trained["inputs"] |= BRIEF
    for data in prompts.nodes_of(graph, "KinetographTrainingData"):
        data["inputs"] |= CLIPS.get(path.stem, {})
    client = pocket.client
    result = client.run(graph)
    assert result.status == "success" and not result.node_errors, result.message
    files = [file for file in result.files() if file["type"] == "output" and is_seen(file["filename"])]
    made = [size_of(pocket.base / "output" / file["subfolder"] / file["filename"]) for file in files]
    assert sorted(made) == sorted(MAKES[path.stem])
    shown = [result.outputs[i]["text"] for i, node in graph.items() if node["class_type"] == "PreviewAny"]
    assert [text.startswith(SEAMS[path.stem]) for (text,) in shown] == [True] * (path.stem in SEAMS)


def is_seen(name):
    """Whether a file is a video or a picture."""
    return name.endswith((".mp4", ".gif", ".png"))


def frames_of(file):
    """(f, h, w, 3), 8 bits."""
    with av.open(file) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def size_of(file):
    """(frames, width, height) of a video."""
    frames, height, width, _ = frames_of(file).shape
    return frames, width, height


def made_by(pocket, name, change=lambda graph, name: graph):
    """Frames (f, h, w, 3) in 0..1 of a workflow with all its steps, as it is or changed."""
    result = pocket.client.run(change(read(ROOT / "workflows" / "api" / f"{name}.json"), name))
    assert result.status == "success", result.message
    (file,) = result.files()
    frames = frames_of(pocket.base / "output" / file["subfolder"] / file["filename"])
    return torch.from_numpy(frames) / 255


def test_text_to_video_draws_a_clean_circle(pocket):
    """As it is, with all its steps: what a newcomer sees first. 0.068 and 0.077; dynamic guidance 6: 0.12, 0.17."""
    frames = made_by(pocket, "try_cogvideox")
    assert detector.read_clip(frames) == detector.Reading("red", "circle", "moving left")
    off = [away_from_circle(cover) for cover in detector.foreground(frames)]
    assert sum(off) / len(off) < 0.085 and max(off) < 0.1


# what a workflow draws, and where its shape is in each frame; None: wherever it likes
DRAWS = {
    "cogvideox_fun_text_to_video": (("blue", "square", "moving up"), None),
    "cogvideox_fun_image_to_video": (("red", "circle", "moving right"), inputs.RIGHT.centres()),
    "try_cogvideox_fun": (("red", "circle", "moving right"), inputs.NEAR.centres()),
    "cogvideox_fun_inpaint_video": (("red", "circle", "moving right"), inputs.RIGHT.centres()),
    "cogvideox_fun_control_video": (("yellow", "triangle", None), inputs.CORNER.centres()),
    # filmed at 24 frames a second, redrawn at 8
    "cogvideox_fun_video_to_video": (
        ("blue", "square", "moving left"),
        inputs.FILMED.centres(inputs.FILM_FRAMES)[:49:3],
    ),
}


# other hosts run the same graphs with fewer steps
@pytest.mark.newest
@pytest.mark.parametrize("name", DRAWS)
def test_fun_workflows_draw_what_they_are_for(pocket, name):
    """With what the pocket models draw well, and all its steps. A clip that stands still is off its way."""
    frames, (shown, way) = made_by(pocket, name, stand_ins.as_drawn), DRAWS[name]
    assert detector.read_clip(frames) == detector.Reading(*shown)
    if way is not None:
        off = (detector.centres(frames) - way).norm(dim=-1)
        assert off.mean() < 1.5 and off.max() < 2.5
    first, *_, last = draw_scenes([inputs.NEAR])[0]
    if name in ("cogvideox_fun_image_to_video", "try_cogvideox_fun"):
        assert psnr(frames[:1], first[None]) > 25
    if name == "try_cogvideox_fun":
        assert psnr(frames[-1:], last[None]) > 22
    if name == "cogvideox_fun_inpaint_video":
        kept = inputs.HOLE.mask() < 0.5
        assert psnr(frames[kept][None], inputs.covered_clip()[kept][None]) > 28


# frames in the middles of the parts: what is between two of them is neither
PARTS = {"red": (0, 13), "green": (22, 29), "blue": (38, 45), "yellow": (52, 65)}


@pytest.mark.newest
def test_every_part_of_a_long_clip_follows_its_prompt(pocket):
    """With all its steps: the circle goes to and fro, and no jump shows where windows meet."""
    frames = made_by(pocket, "cogvideox_long_clip", stand_ins.as_drawn)
    for number, (colour, (first, end)) in enumerate(PARTS.items()):
        motion = f"moving {('right', 'left')[number % 2]}"
        assert detector.read_clip(frames[first:end]) == detector.Reading(colour, "circle", motion)
    way = detector.centres(frames)
    assert way[:, 0].max() - way[:, 0].min() > 20
    assert way.diff(dim=0).norm(dim=-1).max() < 4


def away_from_circle(cover_hw):
    """Share of a shape's area that a circle of the same area in the same place misses or adds."""
    solid = (cover_hw * 2 - 0.5).clamp(0, 1)
    (centre,) = detector.centroids(solid[None])
    circle = detector.silhouette("circle", float(solid.sum()), centre, len(solid))
    return float((solid - circle).abs().sum() / solid.sum())


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_another_checkpoint_needs_another_name_alone(path):
    """Sizes are the model's own: 0. Typed are SVD's 14 frames, which its file does not tell, what a LoRA was
    made at, and the length of a clip that is longer than the model's."""
    for node in prompts.nodes_of(read(path), "KinetographVideoLatent"):
        sizes = [node["inputs"][name] for name in ("width", "height", "num_frames")]
        assert sizes == TYPED.get(path.stem, [0, 0, 0])
        assert "model" in node["inputs"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_and_what_it_needs_are_served(pocket, path):
    listed = pocket.client.get_json("/workflow_templates")
    assert path.stem in listed["ComfyUI-Kinetograph"]
    place = "/api/workflow_templates/ComfyUI-Kinetograph"
    for file in (path, path.with_suffix(".jpg"), *files_in(ROOT / "workflows" / "input")):
        served = pocket.client.get(f"{place}/{file.relative_to(path.parent).as_posix()}")
        assert served == file.read_bytes()


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def to_prompt(template):
    """A saved graph as an API prompt: {node id: (class, title, inputs)}, as the browser converts it: without notes, and
    without what is bypassed."""
    sources = {link[0]: [str(link[1]), link[2]] for link in template["links"]}
    return {
        str(node["id"]): (node["type"], node.get("title"), dict(inputs_of(node, sources)))
        for node in template["nodes"]
        if node["type"] not in NOTES and node["mode"] != BYPASSED
    }


def inputs_of(node, sources):
    """(name, link or widget's value) of every input that a prompt holds."""
    values = iter(node.get("widgets_values", []))
    waiting = next(values, None)
    for socket in node["inputs"]:
        linked = socket["link"] is not None
        if "widget" in socket:
            # a widget keeps its value beside a link, which counts
            yield socket["name"], sources[socket["link"]] if linked else waiting
            waiting = next(values, None)
            if waiting in BESIDE_A_SEED and socket["name"].split(".")[-1] == "seed":
                waiting = next(values, None)
        elif linked:
            yield socket["name"], sources[socket["link"]]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_the_api_prompt_drawn(pocket, path):
    api = read(ROOT / "workflows" / "api" / path.name)
    drawn = to_prompt(read(path))
    for number, node in api.items():
        kind, title, inputs = drawn.pop(number)
        assert kind == node["class_type"]
        assert title in (None, node["_meta"]["title"])  # None: the node's own name
        assert {name: inputs[name] for name in inputs if name != "upload"} == node["inputs"]
    assert drawn == {}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_knows_every_node_and_says_what_to_choose(pocket, path):
    nodes = read(path)["nodes"]
    known = pocket.client.get_json("/object_info")
    assert [node["type"] for node in nodes if node["type"] not in (*NOTES, *known)] == []
    (note,) = [node for node in nodes if node["type"] in NOTES]
    assert "https://huggingface.co/" in note["widgets_values"][0]
