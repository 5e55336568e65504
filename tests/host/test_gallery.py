"""EasyAnimate v1's gallery on the real host: base, checkpoint and LoRA, sampler, seed, size and prompt of all nineteen clips.

Two steps of a tiny model, whose cost is its attention over up to 80 frames of 512x512. No other version of the host would
say more of it.
"""

from collections import Counter
from itertools import combinations

import av
import numpy as np
import pytest
import torch

from kinetograph.tests.host import gallery
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.workbench import relative
from kinetograph.tools import prompts

pytestmark = pytest.mark.newest
GALLERY = gallery.ROWS_OF_GALLERY
STEPS = 2
SAMPLERS = (*gallery.SAMPLERS.values(), "euler")
# of each base a row with the fewest frames
LEAST = {row["base"]: row for row in sorted(GALLERY, key=lambda row: row["frames"], reverse=True)}
DECODED = LEAST["PixArt"]
FEW_FRAMES = {"num_frames": 2}


@pytest.fixture(scope="module")
def served(host, tmp_path_factory):
    with gallery.serve(host, tmp_path_factory.mktemp("gallery")) as server:
        yield server


@pytest.fixture(scope="module")
def made(served):
    """A function that gives what became of a row in two steps, sampled once: its latents (f, 4, h, w), and its files."""
    kept = {}

    def make(row):
        number = GALLERY.index(row)
        if number not in kept:
            prompt = gallery.prompt_of(row, steps=STEPS)
            result = served.client.run(gallery.as_video(prompt, row) if row is DECODED else prompt)
            kept[number] = gallery.latents_of(served.base, result), result.files()
        return kept[number]

    return make


def name_of(row):
    return f"{row['base']} {row['height']}x{row['width']}x{row['frames']}".replace(" + ", "+")


def test_the_list_is_the_gallery():
    """Eleven, four and four, as the page of the gallery counts them."""
    assert Counter(row["base"] for row in GALLERY) == {"PixArt": 11, "Portrait": 4, "Pixart + Lora": 4}
    assert {row["sampler"] for row in GALLERY if row["base"] == "PixArt"} == {"DPM++"}
    assert {row["sampler"] for row in GALLERY if row["base"] != "PixArt"} == {"Euler A"}


@pytest.mark.parametrize("row", GALLERY, ids=name_of)
def test_workflows_hold_what_the_gallery_names(row):
    """But for prompt and size nothing is set: the workflow of its base has the sampler and the seed."""
    sampler = prompts.only_node(gallery.workflow_of(row), gallery.SAMPLER)["inputs"]
    assert sampler["seed"] == row["seed"] == 43
    assert sampler["sampler_name"] == gallery.SAMPLERS[row["sampler"]]


@pytest.mark.parametrize("row", GALLERY, ids=name_of)
def test_every_clip_of_the_gallery(made, row):
    """Rows tell height x width x frames."""
    latents, _ = made(row)
    assert tuple(latents.shape) == gallery.shape_of(row)
    assert latents.isfinite().all()
    # every frame is one of its own
    assert (latents.diff(dim=0).abs().amax(dim=(1, 2, 3)) > 1e-3 * latents.abs().max()).all()


@pytest.mark.parametrize("row", LEAST.values(), ids=name_of)
def test_the_sampler_is_the_one_that_was_chosen(served, row):
    """What KSampler makes of that name, bit for bit, and of no other: at four steps DPM++ 2M is no Euler."""
    graph = gallery.prompt_of(row, steps=4)
    prompts.only_node(graph, gallery.LATENT)["inputs"].update(FEW_FRAMES)
    asked = prompts.only_node(graph, gallery.SAMPLER)["inputs"]
    usual = {name: asked[name] for name in ("model", "positive", "negative", "seed", "steps", "scheduler")}
    usual |= {"latent_image": asked["latent"], "cfg": asked["guidance.cfg"], "denoise": 1.0}
    for name in SAMPLERS:
        graph[name] = node("KSampler", sampler_name=name, **usual)
        graph[f"{name} saved"] = node("SaveLatent", samples=[name, 0], filename_prefix="gallery")
    result = served.client.run(graph)
    ours = gallery.latents_of(served.base, result)
    for name in SAMPLERS:
        theirs = gallery.latents_of(served.base, result, f"{name} saved")
        if name == gallery.SAMPLERS[row["sampler"]]:
            assert torch.equal(ours, theirs)
        else:
            assert relative(ours, theirs) > 1e-4, name


def test_each_prompt_gives_its_own_clip(made):
    """Rows that differ in nothing else."""
    rows = [row for row in GALLERY if row["base"] == "Pixart + Lora" and row["frames"] == 64]
    clips = [made(row)[0] for row in rows]
    assert len(clips) == 3
    assert all(relative(*pair) > 1e-4 for pair in combinations(clips, 2))


def test_base_checkpoint_and_lora_are_three_models(served):
    """At one size, with one prompt and one sampler."""
    same = {**DECODED, **{"frames": 2, "width": 64, "height": 64}}
    chosen = {"sampler_name": "euler", "scheduler": "normal", "steps": STEPS}
    prompts = [gallery.prompt_of({**same, "base": base}, **chosen) for base in gallery.WORKFLOWS]
    clips = [gallery.latents_of(served.base, served.client.run(prompt)) for prompt in prompts]
    assert all(relative(*pair) > 1e-2 for pair in combinations(clips, 2))


def test_one_of_them_becomes_a_video(served, made):
    """Whole, and frame by frame its latents: their first three channels are the colours of squares."""
    latents, files = made(DECODED)
    (file,) = (file for file in files if file["filename"].endswith(".mp4"))
    with av.open(served.base / "output" / file["subfolder"] / file["filename"]) as video:
        assert video.streams.video[0].average_rate == 12
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == (DECODED["frames"], DECODED["height"], DECODED["width"], 3)
    squares_fhw = torch.from_numpy(frames).float().unfold(1, 8, 8).unfold(2, 8, 8).mean(dim=(3, 4, 5))
    for seen, meant in zip(squares_fhw, latents[:, :3].clamp(-1, 1).mean(dim=1), strict=True):
        assert torch.stack([seen.flatten(), meant.flatten()]).corrcoef()[0, 1] > 0.9
