"""Trainings in the graph of a real host: what they leave, what the host's own nodes make of it, Cancel, and refusals."""

import importlib.util
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from kinetograph.modules.training.data.footage import open_file
from kinetograph.pocket import datasets
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.training_graphs import (
    POCKET,
    SAMPLES,
    data,
    sampled,
    saved,
    shown,
    training,
    write_data,
)

PNG = 8  # bytes in front of a preview's picture


@pytest.fixture(scope="module")
def folders(base, server):
    """Data sets below the input folder: clips of the pocket's world, and several that are of no use."""
    write_data(base, "shapes")
    for name in ("silent", "broken", "empty"):
        (base / "input" / name).mkdir()
    shutil.copy(base / "input" / "shapes" / "00000.mp4", base / "input" / "silent" / "a.mp4")
    (base / "input" / "broken" / "a.mp4").write_bytes(b"no film" * 100)
    (base / "input" / "broken" / "a.txt").write_text("a circle")
    yield base / "output" / "training"
    for name in ("shapes", "silent", "broken", "empty"):
        shutil.rmtree(base / "input" / name)


def run(client, graph, **how):
    result = client.run(graph, **how)
    assert result.status == "success" and not result.node_errors, result.message
    return result


def frames_of(base, result, name):
    """(f, h, w, 3) in 0..255 of what a node saved."""
    files = [base / "output" / file["filename"] for file in result.outputs[f"{name}_save"]["images"]]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).astype(float)


def test_one_graph_trains_saves_and_samples(client, base, folders):
    """By the host's loader and by ours the LoRA gives the same clip, another one than before; the MODEL gives the old."""
    before = frames_of(base, run(client, {"cog": POCKET["cog"], **sampled(["cog", 0], "old")}), "old")
    graph = {
        **training(name="one", lr=0.02, **SAMPLES),
        "theirs": node(
            "LoraModelLoader", model=["cog", 0], lora=["train", 0], strength_model=1.0, bypass=False
        ),
        "lora": node("SaveLoRA", lora=["train", 0], prefix="loras/one", steps=["train", 2]),
        "graph": node("LossGraphNode", loss=["train", 1], filename_prefix="loss"),
        "saved": saved(["cog", 0]),
        "name": shown("saved", 1),
        "report": shown("train", 4),
        **sampled(["theirs", 0], "host"),
        **sampled(["saved", 0], "ours"),
        # another prompt, so that the host samples anew
        **sampled(["cog", 0], "new", prompt="a red circle moving left "),
    }
    result = run(client, graph)
    host, ours, new = (frames_of(base, result, name) for name in ("host", "ours", "new"))
    assert np.array_equal(new, before)
    assert np.abs(ours - before).mean() > 20 * np.abs(ours - host).mean() and np.abs(ours - before).mean() > 1
    # files: the host's name tells the steps, ours lies where LoRAs do
    (theirs,) = (base / "output" / "loras").glob("one_3_steps_*.safetensors")
    mine = base / "models" / "loras" / "one.safetensors"
    assert len(load_file(theirs)) == len(load_file(mine)) == 3 * 4 * 5
    assert result.outputs["name"]["text"] == ["one.safetensors"]
    assert "one: lora after 3 steps" in result.outputs["report"]["text"][0]
    assert result.outputs["graph"]["images"] and previews_of(result)[-1].size == picture_of(base, result).size
    assert (folders / "one" / "samples" / "step-000002.png").exists()


def previews_of(result):
    """Pictures that the node showed while it trained."""
    return [Image.open(io.BytesIO(data[PNG:])) for data in result.previews if data[:4] == b"\0\0\0\1"]


def picture_of(base, result):
    (shown,) = result.outputs["train"]["images"]
    return Image.open(base / "temp" / shown["filename"])


def test_cancel_keeps_what_was_learned_and_the_next_run_goes_on(client, folders):
    """Bit for bit as if nobody had pressed it."""
    reached = []

    def cancel(kind, data):
        if kind == "progress" and data.get("max") == 400 and data["value"] >= 2 and not reached:
            reached.append(data["value"])
            client.interrupt()

    stopped = client.run(training(name="stopped", steps=400, **{"learning.ema": 0.5}), listener=cancel)
    assert stopped.status == "interrupted" and reached
    assert not (folders / "stopped" / "stopped.safetensors").exists()
    step = json.loads((folders / "stopped" / "state.json").read_text())["step"]
    assert reached[0] <= step < 400
    with (folders / "stopped" / "log.jsonl").open("a") as log:
        # as a run leaves it that was killed behind its last state, in the middle of a line
        log.write(json.dumps({"step": step + 1, "loss": 9.0}) + '\n{"step": ')
    for name in ("stopped", "straight"):
        run(client, training(name=name, steps=step + 2, **{"learning.ema": 0.5}))
    gone_on, straight = (
        load_file(folders / name / f"{name}.safetensors") for name in ("stopped", "straight")
    )
    assert gone_on.keys() == straight.keys()
    assert all(torch.equal(gone_on[key], straight[key]) for key in straight)
    logged = [
        [json.loads(line)["loss"] for line in (folders / name / "log.jsonl").read_text().splitlines()]
        for name in ("stopped", "straight")
    ]
    assert logged[0] == logged[1] and len(logged[0]) == step + 2


def test_every_choice_reaches_the_recipe(client, folders):
    further = {
        "further": "chosen",
        **{f"further.{name}": value for name, value in FURTHER.items()},
    }
    clip = {
        **{
            "format": "captions",
            "frames": 9,
            "random_frames": "fun",
            "flip": True,
            "pace": "frames per second",
        },
        **{"pace.fps": 8.0, "sizes": "token length", "sizes.crop": "random", "sizes.token_size": 64},
        **{"sizes.image_size": 128, **further},
    }
    del clip["random_frames"]
    graph = training(
        name="all of it",
        lr=2e-3,
        clip=clip,
        seed=5,
        steps=1,
        learning="lion",
        machine="by hand",
        **{"part.rank": 2, "part.alpha": 1.0, "part.layers": "all", "part.dialect": "PEFT"},
        **{f"learning.{name}": value for name, value in LEARNING.items()},
        **{f"machine.{name}": value for name, value in MACHINE.items()},
        **{
            "samples": "on",
            "samples.every": 7,
            "samples.steps": 4,
            "samples.cfg": 2.0,
            "samples.prompt": "a blue circle",
        },
    )
    graph["data"]["inputs"].pop("pace.stride")
    run(client, graph)
    recipe = json.loads((folders / "all of it" / "recipe.json").read_text())
    assert recipe["part"] == {"name": "lora", "rank": 2, "alpha": 1.0, "layers": "all", "dialect": "PEFT"}
    told = {"folder": "shapes", "format": "captions", "width": 64, "height": 64, "frames": 9, "fps": 8.0}
    told |= {"buckets": True, "token_size": 64, "image_size": 128, "crop": "random", "flip": True}
    assert recipe["data"] == recipe["data"] | told | FURTHER
    assert recipe["loss"] == recipe["loss"] | {"kind": "target", "weight": "min_snr", "motion_sub": 0.25}
    plain = {name: value for name, value in LEARNING.items() if name not in ("loss", "motion_sub")}
    assert recipe["steps"] == recipe["steps"] | plain | {
        "optimizer": "lion",
        "lr": 2e-3,
        "at_once": 2,
        "seed": 5,
    }
    assert recipe["machine"] == recipe["machine"] | {k: v for k, v in MACHINE.items() if k != "at_once"}
    assert recipe["evaluation"] == recipe["evaluation"] | {
        "every": 7,
        "steps": 4,
        "cfg": 2.0,
        "prompts": ["a blue circle"],
    }


FURTHER = {
    **{"variants": 2, "video_repeat": 3, "start": 0.1, "end": 0.9, "begin": "first", "dropout": 0.3},
    **{"image_dropout": 0.2, "image_noise": False, "told_fps": 9.0, "told_bucket": 33.0},
}
LEARNING = {
    **{"batch": 2, "weight_decay": 0.02, "schedule": "cosine", "warm_up": 1, "clip": 0.5, "ema": 0.9},
    **{"loss": "min_snr", "motion_sub": 0.25},
}
MACHINE = {"precision": "fp32", "checkpointing": False, "at_once": 2, "save_every": 1}


def changed(**widgets):
    return lambda: training(name="refused", **widgets)


# name: (graph, words of the message)
AT_THE_POST = {
    "a name that leads elsewhere": (lambda: training(name="../up"), "name must be 1 to 80 letters"),
    "no such folder": (lambda: training("cog", "nowhere"), "There is no folder 'nowhere' below ComfyUI's input"),
    "a folder above": (lambda: training("cog", "../models"), "There is no folder '../models'"),
    "an empty folder": (lambda: training("cog", "empty"), "has nothing to train on"),
    "a list that is not there": (lambda: training(clip={"format": "webvid"}), "must hold one *.csv"),
    "no such part": (changed(part="all"), "part must be one of lora, motion_lora"),
    "a file name with a folder": (
        lambda: {"saved": saved(run="one", filename="loras/one")},
        "filename must be 1 to 80 letters",
    ),
}  # fmt: skip
if importlib.util.find_spec("bitsandbytes") is None:
    AT_THE_POST["no bitsandbytes"] = (changed(learning="adamw8bit"), "needs the package bitsandbytes")
    AT_THE_POST["a small card without it"] = (changed(machine="16 GB"), "16 GB takes adamw8bit, which needs")


@pytest.mark.parametrize("case", AT_THE_POST)
def test_what_is_known_at_the_post_is_said_there(client, folders, case):
    graph, words = AT_THE_POST[case]
    result = client.run(graph())
    assert words in result.message
    ran = {data["node"] for kind, data in result.events if kind == "executing"}
    assert not ran & {"cog", "train", "saved"}


BEFORE_THE_FIRST_STEP = {
    "a part that the family lacks": (changed(part="motion_lora"), "a MotionLoRA changes AnimateDiff's motion modules"),
    "a clip that is too short": (changed(clip={"frames": 41}), "it has fewer frames than a clip of 41"),
    "a film that is none": (lambda: training("cog", "broken", "refused"), "the file cannot be read as a video"),
    "no captions": (lambda: training("cog", "silent", "refused"), "it has no caption"),
    "a size of no model": (changed(clip={"width": 72}), "72"),
    "a movement that is mirrored": (changed(clip={"camera": "pan_left", "flip": True}), "set flip = false"),
    "a weight of another loss": (changed(part="motion_module"), "no motion modules are in this network"),
    "another text": (
        lambda: training(name="refused") | {"data": node("PrimitiveString", value='{"folder": "../models"}')},
        "There is no folder '../models'",
    ),
    "no run of that name": (
        lambda: {"cog": POCKET["cog"], "saved": saved(["cog", 0], run="nobody")},
        "There is no training 'nobody'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFORE_THE_FIRST_STEP)
def test_what_cannot_be_is_said_before_the_first_step(client, folders, case):
    graph, words = BEFORE_THE_FIRST_STEP[case]
    result = client.run(graph())
    assert result.status == "error" and words in result.message, result.message
    assert not (folders / "refused").exists() and not result.previews


def test_what_is_trained_stays_fp32_under_bf16(client, folders):
    """Weights and moments of the state; the file is in 16 bits, and says what products were computed in."""
    hand = {
        "machine": "by hand",
        "machine.precision": "bf16",
        "machine.checkpointing": True,
        "machine.at_once": 1,
    }
    run(client, training(name="half", steps=1, **hand))
    (state,) = (folders / "half").glob("state-*.safetensors")
    kept = [value for key, value in load_file(state).items() if key.startswith(("model.", "optimizer."))]
    assert len(kept) > 100 and {value.dtype for value in kept if value.ndim} == {torch.float32}
    with safe_open(folders / "half" / "half.safetensors", "pt") as file:
        assert file.metadata()["ss_mixed_precision"] == "bf16"
        halves = [file.get_tensor(key) for key in file.keys() if key.endswith(".weight")]  # noqa: SIM118
    assert {value.dtype for value in halves} == {torch.bfloat16}


@pytest.mark.parametrize("format", ["normal", "diffusers"])
def test_a_lora_learns_from_either_list(client, base, folders, format):
    folder = base / "input" / f"listed-{format}"
    datasets.write_folder("shapes", folder, 2, format)
    run(client, training("cog", folder.name, f"from {format}", steps=1, clip={"format": format}))
    assert json.loads((folders / f"from {format}" / "recipe.json").read_text())["data"]["format"] == format
    shutil.rmtree(folder)


def test_a_card_s_settings_are_named(client, folders):
    result = run(
        client,
        {
            **training(name="card", steps=1, machine="80 GB", **{"part.rank": 256, "part.alpha": 64.0}),
            "report": shown("train", 4),
        },
    )
    assert (
        "For 80 GB: rank 128 in place of 256, alpha 32.0 in place of 64.0."
        in result.outputs["report"]["text"][0]
    )
    recipe = json.loads((folders / "card" / "recipe.json").read_text())
    assert (recipe["part"]["rank"], recipe["part"]["alpha"]) == (128, 32.0)


def test_a_run_of_the_same_name_with_other_settings_is_not_mixed_up(client, folders):
    run(client, training(name="mine", steps=1))
    result = client.run(training(name="mine", steps=2, lr=0.5))
    assert result.status == "error" and "holds a run of this name with another steps" in result.message


def test_a_result_that_is_gone_is_made_again(client, folders):
    graph = training(name="gone", steps=1)
    run(client, graph)
    assert "train" in run(client, graph).cached
    (folders / "gone" / "gone.safetensors").unlink()
    assert "train" not in run(client, graph).cached
    assert (folders / "gone" / "gone.safetensors").exists()


def test_whole_weights_are_no_lora_and_are_saved_as_what_they_are(client, base, folders):
    """The output for LoRAs ends in a sentence where somebody takes it, and is silent otherwise."""
    graph = {
        **training(name="whole", part="whole", steps=1, lr=1e-4),
        "saved": saved(),
        "name": shown("saved", 1),
    }
    result = run(client, graph)
    (name,) = result.outputs["name"]["text"]
    assert (base / "models" / "diffusion_models" / name).exists()
    taken = client.run({**graph, "lora": node("SaveLoRA", lora=["train", 0], prefix="loras/whole")})
    (said,) = [data for kind, data in taken.events if kind == "execution_error"]
    assert "This training's part is whole" in said["exception_message"] and said["node_id"] == "lora"
    assert not list((base / "output" / "loras").glob("whole*"))


def test_no_file_is_replaced_and_the_same_bytes_are_stored_once(client, base, folders):
    """A foreign file keeps its name; the run gets a number."""
    place = base / "models" / "loras" / "taken.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"somebody's")
    run(client, training(name="taken", steps=1))
    texts = [
        run(client, {"saved": saved(run="taken", strength=strength), "name": shown("saved", 1)})
        for strength in (1.0, 0.5)
    ]
    assert [text.outputs["name"]["text"] for text in texts] == [["taken-2.safetensors"]] * 2
    assert place.read_bytes() == b"somebody's"
    assert sorted(path.name for path in place.parent.glob("taken*")) == ["taken-2.safetensors", place.name]
    place.unlink()


def test_the_report_of_a_data_set_counts_what_is_left_out(client, base, folders):
    shutil.copy(base / "input" / "broken" / "a.mp4", base / "input" / "shapes" / "z.mp4")
    try:
        result = run(client, {"data": data("shapes", frames=9)})
    finally:
        (base / "input" / "shapes" / "z.mp4").unlink()
    (text,) = result.outputs["data"]["text"]
    assert text.splitlines()[0] == "shapes: 2 clips of 3 items, 2 cuts."
    assert "1 of 3 left out: the file cannot be read as a video (z.mp4)." in text


def test_lists_of_the_hosts_dataset_nodes_become_a_folder(client, base, folders):
    """Pictures without loss, and written once; other lists under the name get a number. `folder` leads on."""
    datasets.write_folder("photos", base / "input" / "photos", 2, "captions")

    def graph(folder):
        load = node("LoadImageTextDataSetFromFolder", folder=folder)
        kept = node(
            "KinetographSaveTrainingData", clips=["load", 0], captions=["load", 1], name="listed", rate=8.0
        )
        return {"load": load, "kept": kept, "data": data(["kept", 0], frames=1)}

    for folder, name, count in (
        ("photos", "listed", 2),
        ("kinetograph_chalk", "listed-2", 16),
        ("photos", "listed", 2),
    ):
        (text,) = run(client, graph(folder)).outputs["data"]["text"]
        assert text.splitlines()[0] == f"{name}: {count} pictures of {count} items, {count} cuts."
        assert captioned(base / "input" / name) == captioned(base / "input" / folder)
    for name in ("photos", "listed", "listed-2"):
        shutil.rmtree(base / "input" / name)


def captioned(folder):
    """(caption, pixels) of each picture: the host's loader takes them in any order."""
    pictures = [(path, Image.open(path).convert("RGB").tobytes()) for path in folder.glob("*.png")]
    return sorted((path.with_suffix(".txt").read_text().strip(), pixels) for path, pixels in pictures)


@pytest.mark.newest
def test_a_list_of_videos_becomes_a_folder(client, base, folders):
    """Files that nothing changed are copied; frames that a node chose are clips without loss."""
    load = node("LoadVideoTextDataSetFromFolder", folder="shapes")
    chosen = node("VideoFrameSample", video=["load", 0], num_frames=5, strategy="head", seed=0)
    graph = {"load": load, "chosen": chosen}
    for name, source in (("copied", "load"), ("cut", "chosen")):
        kept = {"clips": [source, 0], "captions": ["load", 1], "name": name, "rate": 8.0}
        graph |= {
            name: node("KinetographSaveTrainingData", **kept),
            f"{name}_data": data([name, 0], frames=5),
        }
    run(client, graph)
    source, copied, cut = (base / "input" / name / "00000" for name in ("shapes", "copied", "cut"))
    assert copied.with_suffix(".mp4").read_bytes() == source.with_suffix(".mp4").read_bytes()
    (mine,), theirs = base.glob("input/cut/00000*.mkv"), open_file(str(source.with_suffix(".mp4")), "video")
    ours = open_file(str(mine), "video")
    assert ours.num_frames == 5 and cut.parent.is_dir()
    pairs = zip(ours.read(range(5)), theirs.read(range(5)), strict=True)
    assert all((mine.int() - given.int()).abs().max() <= 1 for mine, given in pairs)
    for name in ("copied", "cut"):
        shutil.rmtree(base / "input" / name)
