"""Video Continue on the real host: what it makes, what it keeps, and what it refuses before anything is sampled."""

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch

from kinetograph.tests.host.continued import (
    BACK_AND_FORTH,
    OVERLAP,
    SEGMENT,
    centres,
    continued,
    file,
    plan,
    read_frames,
    sampling,
    steps_between,
    write_start,
)
from kinetograph.tests.host.graphs import node
from kinetograph.tools import demo
from kinetograph.tools.server import Server


@pytest.fixture(scope="module")
def pocket(host, tmp_path_factory):
    base = tmp_path_factory.mktemp("continued")
    with Server(Path(sys.executable), host, base, models=demo.MODELS) as server:
        write_start(base / "input")
        yield server


@pytest.fixture
def output(pocket):
    """The folder of results, empty."""
    folder = pocket.base / "output" / "video"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def run(pocket, graph, listener=None):
    result = pocket.client.run(graph, listener)
    assert result.status == "success", result.message
    return result


def report_of(result):
    return result.outputs["continue"]["text"][0]


def frames_of(pocket, result):
    (made,) = result.files()
    return read_frames(pocket.base / "output" / made["subfolder"] / made["filename"])


def kept(folder):
    return {path.name for path in folder.rglob("*.safetensors")}


@pytest.mark.newest
def test_eight_segments_go_on_without_a_seam(pocket, output):
    """A shape that goes back and forth by the prompts: no jump, no drift, and it does not stand still."""
    motions = [BACK_AND_FORTH[i % 2] for i in range(8)]
    graph = continued({**plan(segments=8), **sampling(steps=20), **file()}, motions)
    frames = frames_of(pocket, run(pocket, graph))
    new = SEGMENT - OVERLAP
    assert len(frames) == SEGMENT + 7 * new
    steps = steps_between(frames)
    inside = torch.stack([steps[i * new + OVERLAP : (i + 1) * new].median() for i in range(8)]).median()
    seams = torch.stack([steps[i * new - 1 : i * new + OVERLAP].max() for i in range(1, 8)])
    assert float(seams.max() / inside) <= 1.5
    means = torch.stack([frames[i * new : i * new + SEGMENT].mean((0, 1, 2)) for i in range(8)]) * 255
    assert float((means - means[0]).abs().max()) <= 2
    x = centres(frames)[:, 0]
    asked = 22 / (SEGMENT - 1) * new
    ways = [float(x[(i + 1) * new + OVERLAP - 1] - x[i * new + OVERLAP - 1]) for i in range(8)]
    assert all(way * (-1) ** i > 0.7 * asked for i, way in enumerate(ways)), ways


@pytest.mark.newest
def test_a_closed_loop_ends_where_it_begins(pocket, output):
    motions = ("moving right", "moving left", "moving left")
    graph = continued({**plan("closed loop", segments=3), **sampling(steps=20), **file()}, motions)
    frames = frames_of(pocket, run(pocket, graph))
    assert len(frames) == 3 * (SEGMENT - OVERLAP)
    back = float((frames[0] - frames[-1]).abs().mean()) * 255
    assert back <= 1.5 * float(steps_between(frames).median())
    x = centres(frames)[:, 0]
    assert float(x.max() - x.min()) > 0.7 * 22


def test_a_rerun_goes_on_from_finished_segments(pocket, output):
    graph = continued({**plan(segments=3), **sampling(), **file()}, BACK_AND_FORTH)
    first = run(pocket, graph)
    whole = frames_of(pocket, first)
    assert report_of(first).count("made") == 3
    (made,) = first.files()
    (output / made["filename"]).unlink()
    again = run(pocket, graph)
    assert report_of(again).count("kept") == 3 and torch.equal(frames_of(pocket, again), whole)


def test_segments_in_context_windows(pocket, output):
    """Segments longer than the model's clips; windows that lie elsewhere make others."""

    def graph(overlap):
        parts = {
            "schedule": "standard_static",
            "schedule.overlap": overlap,
            "schedule.fuse_method": "pyramid",
        }
        made = continued({**plan(), **sampling(), **file()}, frames=33)
        made["windows"] = node(
            "KinetographContextWindows", model=["loader", 0], length=17, freenoise=False, **parts
        )
        made["continue"]["inputs"]["model"] = ["windows", 0]
        return made

    first = run(pocket, graph(8))
    whole = frames_of(pocket, first)
    assert len(whole) == 2 * 33 - OVERLAP and report_of(first).count("made") == 2
    (output / first.files()[0]["filename"]).unlink()
    again = run(pocket, graph(8))
    assert report_of(again).count("kept") == 2 and torch.equal(frames_of(pocket, again), whole)
    other = run(pocket, graph(12))
    assert report_of(other).count("made") == 2 and not torch.equal(frames_of(pocket, other), whole)


def test_a_new_seed_for_one_segment_makes_it_and_all_after_it_anew(pocket, output):
    choices = {**sampling(), **file()}
    before = frames_of(pocket, run(pocket, continued({**plan(segments=3), **choices})))
    names = kept(output)
    result = run(pocket, continued({**plan(segments=3, seeds="2: 99"), **choices}))
    said = report_of(result).split(". ")
    assert [part.split(": ")[1].split(",")[0].split(" ")[0] for part in said[:3]] == ["kept", "made", "made"]
    after = frames_of(pocket, result)
    same = SEGMENT - OVERLAP
    assert torch.equal(after[:same], before[:same]) and not torch.equal(after[same:], before[same:])
    assert names < kept(output)


def test_segments_are_removed_as_the_user_wishes(pocket, output):
    choices = {**sampling(steps=1), **file()}
    run(pocket, continued({**plan(keep_segments="remove"), **choices}))
    assert not (output / "continued_segments").exists()
    run(pocket, continued({**plan(), **choices}))
    first = kept(output)
    run(pocket, continued({**plan(seeds="1: 5", keep_segments="keep these"), **choices}))
    assert len(first) == len(kept(output)) == 2 and not first & kept(output)


def test_a_stop_leaves_finished_segments_and_no_video(pocket, output):
    graph = continued({**plan(segments=3), **sampling(steps=16), **file()})

    def stop(kind, data):
        if kind == "preview" and len(kept(output)) == 1 and not stopped:
            stopped.append(True)
            threading.Thread(target=pocket.client.interrupt).start()

    stopped = []
    result = pocket.client.run(graph, stop)
    assert stopped and result.status == "interrupted", result.message
    assert len(kept(output)) == 1 and [path for path in output.iterdir() if path.is_file()] == []
    again = run(pocket, graph)
    assert report_of(again).startswith("Segment 1: kept") and report_of(again).count("made") == 2
    stopped_once = frames_of(pocket, again)
    shutil.rmtree(output)
    assert torch.equal(frames_of(pocket, run(pocket, graph)), stopped_once)


def test_a_spoilt_segment_is_made_again(pocket, output):
    graph = continued({**plan(), **sampling(), **file()})
    whole = frames_of(pocket, run(pocket, graph))
    (spoilt,) = output.rglob("0002_*.safetensors")
    spoilt.write_bytes(spoilt.read_bytes()[:-4])
    graph["continue"]["inputs"]["file.filename_prefix"] = "video/continued"
    for path in output.glob("*.mkv"):
        path.unlink()
    again = run(pocket, graph)
    assert "Segment 1: kept" in report_of(again) and "Segment 2: made" in report_of(again)
    assert torch.equal(frames_of(pocket, again), whole)


def test_image_to_video_goes_on_from_one_frame(pocket, output):
    graph = continued({**plan(), **sampling(), **file()}, model="pocket-cogvideox-i2v.safetensors")
    frames = frames_of(pocket, run(pocket, graph))
    assert len(frames) == 2 * SEGMENT - 1
    changed = continued({**plan(overlap=4), **sampling(), **file()}, model="pocket-cogvideox-i2v.safetensors")
    result = pocket.client.run(changed)
    assert result.status == "error" and "goes on from one frame: got overlap=4" in result.message


@pytest.mark.parametrize("loop", [False, True])
def test_svd_goes_on_from_one_frame(pocket, output, loop):
    own = {"image_encoder": "from the checkpoint", "vae": "from the checkpoint", "weight_dtype": "auto"}
    graph = {
        "loader": node("KinetographSVDLoader", model="SVD/pocket-svd.safetensors", **own),
        "latent": node("KinetographVideoLatent", family="svd", width=128, height=128, num_frames=8, batch_size=1),
        "start": node("LoadImage", image="continued_start.png"),
        "continue": node(
            "KinetographVideoContinue", model=["loader", 0], vae=["loader", 2], clip_vision=["loader", 1],
            latent=["latent", 0], start_images=["start", 0], **plan("closed loop" if loop else "open end"),
            **sampling(sampler_name="euler", scheduler="edm"), **file(),
        ),
    }  # fmt: skip
    frames = frames_of(pocket, run(pocket, graph))
    assert len(frames) == (14 if loop else 15)


WRONG = [
    (
        dict(plan(seeds="2; 3")),
        'seeds must be pairs of a segment, from 1, and its seed, such as "3: 17, 5: 4"',
    ),
    (dict(plan(seeds="3: 4")), "seeds names segment 3, the video has 2"),
    (dict(plan("sometimes")), "plan must be one of closed loop, open end"),
    (file("../out"), "filename_prefix '../out' cannot be used"),
    ({"sampling": "none"}, "sampling must be one of constant"),
    ({"file": "video/none"}, "file must be one of"),
]


@pytest.mark.parametrize("changes, said", WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_is_refused_at_the_post_or_before_sampling(pocket, output, changes, said):
    result = pocket.client.run(continued({**plan(), **sampling(), **file(), **changes}))
    assert result.status in ("refused", "error") and said in result.message.replace("\\", "")
    assert not output.exists()


LATE = [
    ({**plan(overlap=9)}, {}, "overlap must be 1 to 8 for segments of 17 frames: got 9"),
    ({**plan("closed loop", segments=1)}, {}, "A closed loop needs two segments or more"),
    ({**plan("closed loop")}, {"end_image": ["start", 0]}, "disconnect end_image"),
    ({}, {"end_image": ["start", 0], "start_images": None}, "An end image needs a start image"),
    ({}, {"negative": None}, "needs both prompts"),
    ({**plan("closed loop")}, {"model": "pocket-cogvideox-i2v.safetensors"}, "it cannot make a closed loop"),
    (
        {},
        {"model": "pocket-cogvideox-i2v.safetensors", "end_image": ["start", 0]},
        "starts from a frame and knows no end: it cannot make an end image",
    ),
    ({**file("video/%Nobody.seed%")}, {}, "Nobody"),
    ({}, {"scheduler": "edm"}, "Scheduler edm is for models with continuous noise levels"),
]


@pytest.mark.parametrize("choices, sockets, said", LATE, ids=range(len(LATE)))
def test_what_does_not_fit_the_model_is_told_before_sampling(pocket, output, choices, sockets, said):
    sockets = dict(sockets)
    more = sampling(scheduler=sockets.pop("scheduler", "trailing"))
    result = pocket.client.run(continued({**plan(), **more, **file(), **choices}, **sockets))
    assert result.status == "error" and said in result.message, result.message
    assert result.previews == [] and kept(output) == set()


def test_other_models_are_named(pocket, output):
    graph = continued({**plan(), **sampling(), **file()}, model="pocket-cogvideox")
    result = pocket.client.run(graph)
    assert result.status == "error"
    assert (
        "goes on with CogVideoX-Fun InP, CogVideoX image to video, SVD and ExVideo: got CogVideoX"
        in result.message
    )


def test_a_note_tells_what_a_segment_is(pocket, output):
    run(pocket, continued({**plan(), **sampling(seed=7), **file()}))
    notes = [json.loads(path.read_text()) for path in sorted(output.rglob("*.json"))]
    assert [(note["segment"], note["seed"], note["frames"]) for note in notes] == [(1, "7", 17), (2, "8", 17)]
    assert notes[1]["after"] == notes[0]["key"] and notes[0]["after"] is None
