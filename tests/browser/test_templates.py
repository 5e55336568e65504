"""Every template opens in the page without a red node, and the page makes its API prompt of it."""

import json

import pytest

from kinetograph.tests.browser.conftest import PROMPTS, ROOT
from kinetograph.tests.saved.page import widgets_in

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
# the player below Load Video, which the page posts as if it were an input; the server passes it over
PLAYER = "video-preview"


@pytest.fixture(scope="module")
def one_tab(new_tab):
    """One page for all templates, one after the other, as a person tries them."""
    tab = new_tab()
    yield tab
    tab.page.context.close()


def test_there_is_a_prompt_for_every_template():
    assert TEMPLATES and [path.stem for path in TEMPLATES] == [path.stem for path in PROMPTS]


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_template_opens_and_becomes_its_api_prompt(one_tab, schemas, path):
    template = one_tab.open(path.stem)
    one_tab.screenshot(f"template-{path.stem}", fit=True)
    assert one_tab.ask("complaints") == []
    assert one_tab.ask("lostControls") == []
    assert not one_tab.find("error-overlay").is_visible()
    assert sorted(map(int, one_tab.ask("drawn"))) == sorted(node["id"] for node in template["nodes"])
    made = one_tab.prompt()
    assert kinds_of(made) == kinds_of(expected := json.loads(path.read_text(encoding="utf-8")))
    for number, node in expected.items():
        inputs = {name: value for name, value in made[number]["inputs"].items() if name != PLAYER}
        assert inputs == {**defaults_of(made[number], schemas), **node["inputs"]}, number


def kinds_of(prompt):
    return {number: node["class_type"] for number, node in prompt.items()}


def defaults_of(node, schemas):
    """What the page adds: widgets that came to a node since its template was saved, each with its default."""
    return {field.name: field.default for field in widgets_in(node, schemas)}
