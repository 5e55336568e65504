"""The first video that a person makes: a template runs, shows how it forms, and the page plays what came out."""

import pytest

from kinetograph.tests.browser.conftest import PROMPTS
from kinetograph.tests.host.test_workflows import MAKES

TRIED = [path.stem for path in PROMPTS if path.stem in ("text_to_video", "svd", "animatediff")]
SAMPLER = "KinetographVideoSampler"
WRITERS = ("KinetographVideoCombine", "KinetographVAEDecodeToVideo")
STEPS = 4


@pytest.mark.parametrize("name", TRIED)
def test_template_runs_to_a_video_that_plays(tab, name):
    tab.open(name)
    tab.ask("set", SAMPLER, "steps", STEPS)
    (rate,) = [
        node["inputs"]["frame_rate"] for node in tab.prompt().values() if node["class_type"] in WRITERS
    ]
    tab.run()
    assert len(tab.events("b_preview")) >= STEPS and min(tab.events("b_preview")) > 0
    video = tab.playing_video()
    ((frames, width, height),) = MAKES[name]
    assert (video["width"], video["height"], video["error"]) == (width, height, None)
    assert video["ready"] >= 2 and abs(video["duration"] - frames / rate) < 0.5 / rate
