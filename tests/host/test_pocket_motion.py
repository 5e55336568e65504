"""The pocket's motion module and MotionLoRAs on the real host, through our nodes: where its shapes go."""

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kinetograph.pocket import detector
from kinetograph.pocket.shapes import MOTIONS
from kinetograph.tests.host.motion_stand_ins import with_pocket_sd
from kinetograph.tools import demo
from kinetograph.tools.commands import ROOT
from kinetograph.tools.prompts import nodes_of
from kinetograph.tools.server import Server

pytestmark = pytest.mark.newest
CLIPS = 3
PATH = 24.0  # pixels of a clip that moves, as in training
COVERED = 0.7
# of the pocket; other settings are those of the templates
SETTINGS = {"guidance.cfg": 2.0, "seed": 3}


@pytest.fixture(scope="module")
def pocket(host, tmp_path_factory):
    with Server(Path(sys.executable), host, tmp_path_factory.mktemp("moving"), models=demo.MODELS) as server:
        yield server


def made(pocket, name="try_animatediff", texts=(), clips=CLIPS, change=lambda graph: None):
    """Centres (clips, f, 2) of the shapes that a template's prompt draws with the pocket SD."""
    graph = with_pocket_sd(json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text()))
    prompts = nodes_of(graph, "CLIPTextEncode")
    for node, text in zip(prompts, (*texts, ""), strict=True):
        node["inputs"]["text"] = text
    for sampler in nodes_of(graph, "KinetographVideoSampler"):
        sampler["inputs"] |= SETTINGS
    for latent in nodes_of(graph, "KinetographVideoLatent"):
        latent["inputs"]["batch_size"] = clips
    for motion in nodes_of(graph, "KinetographMotionModuleApply"):
        motion["inputs"]["motion_module"] = "animatediff_models/pocket-motion.safetensors"
    change(graph)
    result = pocket.client.run(graph)
    assert result.status == "success", result.message
    (file,) = result.files()
    with av.open(str(pocket.base / "output" / file["subfolder"] / file["filename"])) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    covers = detector.foreground(torch.from_numpy(frames) / 255)
    return detector.centroids(covers).unflatten(0, (clips, -1))


def ways(paths_bf2):
    """From the first two frames to the last two, (b, 2), in pixels."""
    return paths_bf2[:, -2:].mean(1) - paths_bf2[:, :2].mean(1)


def without_motion(graph):
    (sampler,) = nodes_of(graph, "KinetographVideoSampler")
    sampler["inputs"]["model"] = ["1", 0]


def with_loras(**strengths):
    """A change that puts the pan MotionLoRAs behind the motion module, by LoRA Stack."""

    def change(graph):
        rows = {"loras": str(len(strengths))}
        for number, (way, strength) in enumerate(strengths.items(), 1):
            rows[f"loras.lora_{number}"] = f"animatediff_motion_lora/pocket-pan-{way}.safetensors"
            rows |= {f"loras.strength_{number}": strength, f"loras.text_strength_{number}": 1.0}
        (number,) = (key for key, node in graph.items() if "MotionModuleApply" in node["class_type"])
        (sampler,) = nodes_of(graph, "KinetographVideoSampler")
        sampler["inputs"]["model"] = ["stack", 0]
        inputs = {"model": [number, 0], "allow_partial": False, "adapter_alpha": 0.0, **rows}
        graph["stack"] = {"class_type": "KinetographLoRAStack", "inputs": inputs}

    return change


def test_shapes_go_where_the_prompt_says_and_evenly(pocket):
    alone = made(pocket, texts=["a red circle moving left"], change=without_motion)
    jump_alone = alone.diff(dim=1).norm(dim=-1).mean()
    for motion, step in MOTIONS.items():
        if any(step):
            paths = made(pocket, texts=[f"a red circle {motion}"])
            along = ways(paths) @ torch.tensor(step, dtype=torch.float32)
            assert (along > 0.35 * PATH).float().mean() >= 0.85, motion
            assert along.mean() >= COVERED * PATH, motion
            assert paths.diff(dim=1).norm(dim=-1).mean() <= 0.2 * jump_alone, motion


def test_pans_turn_the_way_and_cancel_each_other(pocket):
    left, right = (
        ways(made(pocket, texts=["a blue square"], change=with_loras(**{way: 1.0})))[:, 0]
        for way in ("left", "right")
    )
    # seven to nine of ten clips turn (pocket/README.md)
    assert (left < 0).sum() >= 2 and (right > 0).sum() >= 2
    assert left.mean() < -0.35 * PATH and right.mean() > 0.35 * PATH
    both = ways(made(pocket, texts=["a blue square"], change=with_loras(left=0.5, right=0.5)))
    assert both.norm(dim=-1).median() < 0.25 * PATH


def test_a_long_loop_ends_where_it_began(pocket):
    texts = ["a red circle moving right", "a red circle moving left"]
    (path,) = made(pocket, "animatediff_loop", texts, clips=1)
    steps = path.diff(dim=0).norm(dim=-1)
    assert len(path) == 64 and (path[-1] - path[0]).norm() <= 1.5 * steps.median()
    assert (path.max(0).values - path.min(0).values).max() >= COVERED * PATH
