"""The button of Model Download: this node alone, also while it is bypassed; what came is in the lists at once."""

import io

import pytest
from PIL import Image

from kinetograph.tests.browser.conftest import MOTION_LORAS

NODE, STACK, SAMPLER = "KinetographModelDownload", "KinetographLoRAStack", "KinetographVideoSampler"
LORAS = "animatediff_motion_lora"
DOWN, UP, OUT = "v2_lora_TiltDown.ckpt", "v2_lora_TiltUp.ckpt", "v2_lora_ZoomOut.ckpt"


@pytest.fixture
def faults(hub):
    yield hub.faults
    hub.faults.clear()


def open_with_download(tab, template, release):
    """A template that holds the node bypassed, with a release chosen in it."""
    tab.open(template)
    if NODE not in {kind for kind, _ in tab.ask("drawn").values()}:
        tab.ask("addBypassed", NODE, {})
    for name, value in {"release": release, "with_needs": False}.items():
        tab.ask("set", NODE, name, value)


def press(tab, label):
    """Press the button, which then reads `label`."""
    tab.page.mouse.click(*tab.ask("buttonOf", NODE))
    wait_for_label(tab, label)


def wait_for_label(tab, label):
    button = "kinetograph.node(kind).widgets.find(({ type }) => type === 'button')"
    tab.page.wait_for_function(f"([kind, label]) => {button}.label === label", arg=[NODE, label])


def listed(tab):
    """The files that the first list of LoRA Stack has."""
    values = "([kind]) => kinetograph.widget(kind, 'loras.lora_1').options.values"
    return tab.page.evaluate(values, [STACK])


def test_the_button_fetches_a_release_and_the_lists_have_it(tab, server, hub, faults):
    open_with_download(tab, "animatediff_adapter", "MotionLoRA TiltDown")
    saved = "([kind]) => kinetograph.node(kind).serialize().widgets_values"
    assert f"{LORAS}/{DOWN}" not in listed(tab)
    with tab.page.expect_request("**/prompt") as posted:
        press(tab, "Cancel download")
    (alone,) = posted.value.post_data_json["prompt"].values()
    assert alone["class_type"] == NODE
    assert alone["inputs"] == {"release": "MotionLoRA TiltDown", "with_needs": False}
    wait_for_label(tab, "Download now")
    assert tab.ended() == ["execution_success"], tab.events("execution_error")
    tab.page.wait_for_function(
        "([kind, name]) => kinetograph.widget(kind, 'loras.lora_1').options.values.includes(name)",
        arg=[STACK, f"{LORAS}/{DOWN}"],
    )
    assert tab.page.evaluate(saved, [NODE]) == ["MotionLoRA TiltDown", False]
    assert (server.base / "models" / LORAS / DOWN).read_bytes() == hub.repositories[MOTION_LORAS][DOWN]
    assert NODE not in {node["class_type"] for node in tab.prompt().values()}


def test_the_button_cancels_its_own_prompt_alone(tab, server, faults):
    """A template that waits behind the download runs."""
    faults[UP].slow = 0.5
    open_with_download(tab, "try_cogvideox", "MotionLoRA TiltUp")
    tab.ask("set", SAMPLER, "steps", 1)
    press(tab, "Cancel download")
    tab.page.wait_for_function("() => kinetograph.events.some(([kind]) => kind === 'progress')")
    tab.find("queue-button").click()
    tab.page.wait_for_function(
        "async () => (await (await fetch('/queue')).json()).queue_pending.length === 1"
    )
    press(tab, "Download now")
    tab.page.wait_for_function("() => kinetograph.events.some(([kind]) => kind === 'execution_success')")
    assert tab.ended() == ["execution_interrupted", "execution_success"]
    assert not (server.base / "models" / LORAS / UP).exists()


def brightest(tab):
    """Of the pixels where the button reads, 0 to 255."""
    x, y = tab.ask("buttonOf", NODE)
    tab.page.wait_for_timeout(200)
    clip = {"x": x - 60, "y": y - 6, "width": 120, "height": 12}
    with Image.open(io.BytesIO(tab.page.screenshot(clip=clip, timeout=40_000))) as picture:
        return picture.convert("L").getextrema()[1]


def test_what_goes_wrong_stands_on_the_node(tab, faults):
    """An error of the run, and a refusal at the post; the button reads as any other, though the node is bypassed."""
    faults[OUT].status = 404
    open_with_download(tab, "try_cogvideox", "MotionLoRA ZoomOut")
    assert brightest(tab) > 180
    press(tab, "Cancel download")
    tab.find("error-overlay-see-errors").click()
    tab.page.get_by_text("The hub has no such file or repository any more").first.wait_for()
    wait_for_label(tab, "Download now")
    tab.ask("set", NODE, "release", "Nobody's model")
    press(tab, "Download now")
    tab.page.get_by_text('There is no release "Nobody\'s model" to download').first.wait_for()
    at_fault = "([kind]) => String(kinetograph.node(kind).id) === String(app.lastExecutionError.node_id)"
    assert tab.page.evaluate(at_fault, [NODE])
