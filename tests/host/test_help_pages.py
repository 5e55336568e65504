"""Help pages say of every input and output what the schema says: name, kind, range and default."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.newest

ROOT = Path(__file__).resolve().parents[2]
IDS = json.loads((ROOT / "tests" / "node_ids.json").read_text())
MANY = 8  # longer lists of choices, and lists of files, are described in words
FILES = (
    "folder",
    "model",
    "text_encoder",
    "image_encoder",
    "vae",
    "exvideo",
    "motion_module",
    "sparsectrl",
    "personalized",
)
PROBED = "video/nvenc_"  # formats that only some machines have


def listed(page, heading):
    """{name: what it takes} of the list under a heading: "- **name** `what it takes`: meaning"."""
    part = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    items = re.findall(r"^- \*\*(.+?)\*\*(?: `([^`]*)`)?: \S", re.sub(r"\n  +", " ", part), re.M)
    assert len(items) == part.count("\n- ")
    return dict(items)


def number(value):
    return "2^64 - 1" if value == 2**64 - 1 else f"{value:g}"


def takes(name, kind, options):
    """What a page writes in the marks behind the name of an input."""
    if isinstance(kind, list):
        kind, options = "COMBO", {**options, "options": kind}
    if kind in ("INT", "FLOAT"):
        return f"{number(options['min'])} to {number(options['max'])} ({number(options['default'])})"
    if kind == "BOOLEAN":
        return f"on or off ({'on' if options['default'] else 'off'})"
    if kind == "STRING" and not options.get("forceInput"):
        return f"text ({options['default']})"
    if kind == "COMFY_DYNAMICCOMBO_V3":
        return "see below"
    if kind == "COMFY_AUTOGROW_V3":
        ((_, (one, *_)),) = options["template"]["input"]["required"].items()
        return f"{one}, several"
    if kind == "COMBO":
        choices = options["options"]
        default = options.get("default", choices[0] if choices else None)
        if name in FILES or name.startswith("lora_"):
            return f"a name ({default})" if "default" in options else "a name"
        return f"a name ({default})" if len(choices) > MANY else f"{', '.join(choices)} ({default})"
    return kind


@pytest.fixture(scope="module")
def schemas(server):
    return server.client.get_json("/object_info")


@pytest.fixture
def page(node_id):
    return (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")


def inputs_of(schema):
    for group in ("required", "optional"):
        for name, (kind, *rest) in schema["input"].get(group, {}).items():
            yield name, kind, rest[0] if rest else {}, group == "optional"


@pytest.mark.parametrize("node_id", IDS)
def test_inputs_are_those_of_the_schema(schemas, page, node_id):
    expected = {
        name: takes(name, kind, options) + ", optional" * optional
        for name, kind, options, optional in inputs_of(schemas[node_id])
    }
    assert listed(page, "Inputs") == expected


@pytest.mark.parametrize("node_id", IDS)
def test_choices_with_widgets_of_their_own_are_those_of_the_schema(schemas, page, node_id):
    for name, kind, options, _ in inputs_of(schemas[node_id]):
        if kind == "COMFY_DYNAMICCOMBO_V3":
            expected = {
                choice["key"]: "; ".join(
                    f"{leaf} {takes(leaf, kind, settings)}"
                    for leaf, kind, settings, _ in inputs_of({"input": choice["inputs"]})
                )
                for choice in options["options"]
            }
            assert without_probed(listed(page, f"Choices of {name}")) == without_probed(expected)


def without_probed(choices):
    return {key: said for key, said in choices.items() if not key.startswith(PROBED)}


@pytest.mark.parametrize("node_id", IDS)
def test_outputs_are_those_of_the_schema(schemas, page, node_id):
    schema = schemas[node_id]
    assert listed(page, "Outputs") == dict(zip(schema["output_name"], schema["output"], strict=True))


@pytest.mark.parametrize("node_id", IDS)
def test_page_is_titled_as_the_node(schemas, page, node_id):
    assert page.splitlines()[0] == f"# {schemas[node_id]['display_name']}"
