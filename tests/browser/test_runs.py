"""The first video that a person makes: a template runs, shows how it forms, and the page plays what came out."""

import pytest

from kinetograph.tests.browser.conftest import PROMPTS
from kinetograph.tests.host.test_workflows import MAKES

TRIED = [path.stem for path in PROMPTS if path.stem.startswith("try_")]
FAMILIES = ("animatediff", "cogvideox", "cogvideox_fun", "easyanimate", "exvideo", "svd")
SAMPLER = "KinetographVideoSampler"
WRITERS = ("KinetographVideoCombine", "KinetographVAEDecodeToVideo")
# each shows a preview
STEPS = 3


def test_every_family_has_one_to_try_now():
    assert {f"try_{family}" for family in FAMILIES} <= set(TRIED)


@pytest.mark.parametrize("name", [f"try_{family}" for family in FAMILIES])
def test_it_runs_to_a_video_that_plays(tab, name):
    tab.open(name)
    tab.ask("set", SAMPLER, "steps", STEPS)
    (rate,) = [
        node["inputs"]["frame_rate"] for node in tab.prompt().values() if node["class_type"] in WRITERS
    ]
    tab.fit()
    tab.run()
    assert len(tab.events("b_preview")) >= STEPS and min(tab.events("b_preview")) > 0
    video = tab.playing_video()
    ((frames, width, height),) = MAKES[name]
    assert (video["width"], video["height"], video["error"]) == (width, height, None)
    assert video["ready"] >= 2 and abs(video["duration"] - frames / rate) < 0.5 / rate


def test_a_node_that_samples_and_writes_shows_its_video_in_the_end(tab):
    """Video Continue has previews, which the page would load in the video's place."""
    tab.open("cogvideox_fun_loop")
    for name in ("sampling.steps", "plan.segments"):
        tab.ask("set", "KinetographVideoContinue", name, 2)
    tab.fit()
    tab.run()
    assert tab.events("b_preview")
    video = tab.playing_video()
    ((_, width, height),) = MAKES["cogvideox_fun_loop"]
    assert (video["width"], video["height"], video["error"]) == (width, height, None)
