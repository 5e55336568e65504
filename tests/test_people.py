"""What people read and look at: README, help pages, the notes of templates, pictures. It is there and it is right."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HELP = sorted((ROOT / "web" / "docs").glob("*.md"))
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
TRIES = [path for path in TEMPLATES if path.stem.startswith("try_")]
REAL = [path for path in TEMPLATES if path not in TRIES]
LINK = re.compile(r"\]\(([^)#\s]+)\)")
# Every way to name an address in Markdown: [](here), [name]: here, and what HTML has.
ADDRESS = re.compile(r"""\]\(\s*<?([^)\s>]*)|^ *\[[^\]]+\]: *(\S+)|\b(?:href|src)=["']?([^"'\s>]+)""", re.M)
PAGE_NAME = re.compile(r"\*\*([A-Z]\w+(?: \(?[A-Z]\w*\)?)+)\*\*")  # bold, of several words with capitals
NOTE_COLOURS = {"color": "#432", "bgcolor": "#542"}
OWN_FOLDER = "from the model's folder"


def test_links_of_readme_lead_somewhere():
    inside = [link for link in LINK.findall(text_of(ROOT / "README.md")) if "://" not in link]
    assert len(inside) > len(HELP)
    assert [link for link in inside if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", HELP, ids=lambda page: page.stem)
def test_help_pages_hold_no_relative_link(page):
    """The browser reads one against ComfyUI's own address, where no page of ours lies. Other pages are bold names."""
    addresses = ["".join(found) for found in ADDRESS.findall(text_of(page))]
    assert [address for address in addresses if not address.startswith("https://")] == []


def test_pages_that_help_pages_name_are_there():
    titles = {text_of(page).splitlines()[0].removeprefix("# ") for page in HELP}
    named = {name for page in HELP for name in PAGE_NAME.findall(text_of(page))}
    assert len(named) > 5 and named <= titles


def test_security_names_what_connects_and_promises_no_time():
    text = text_of(ROOT / "SECURITY.md")
    assert [
        word
        for word in ("Model Download", "dev.py fetch", "dev.py run", "HF_TOKEN", "pip")
        if word not in text
    ] == []
    assert not re.search(r"\b(with)?in (a|one|\w+) (day|week|month)s?\b|\bhours\b", text)


def test_help_says_where_the_other_hub_has_the_files():
    """ModelScope is named with the form of its addresses, and never followed."""
    page = text_of(ROOT / "web" / "docs" / "KinetographModelDownload.md")
    assert "https://modelscope.cn/models/OWNER/NAME/resolve/master/FILE" in page
    shipped = [path for wing in ("modules", "nodes") for path in (ROOT / wing).rglob("*.py")]
    assert [path for path in shipped if "modelscope.cn" in text_of(path)] == []


def text_of(path):
    return path.read_text(encoding="utf-8")


def test_readme_starts_with_a_small_moving_picture():
    text = text_of(ROOT / "README.md")
    picture = ROOT / LINK.findall(text)[0]
    assert picture.stat().st_size < 600_000
    with Image.open(picture) as clip:
        assert clip.n_frames > 1


def test_readme_names_every_family():
    from kinetograph.modules.families import FAMILIES

    text = text_of(ROOT / "README.md")
    assert [family.label for family in FAMILIES if family.label not in text] == []


def test_readme_has_one_line_for_every_workflow():
    """Those to try stand first."""
    tables = text_of(ROOT / "README.md").split("## Workflows")[1].split("##")[0]
    named = re.findall(r"^\| (\w+) \| \w", tables, re.M)
    assert named == [path.stem for path in (*TRIES, *REAL)]


@pytest.mark.parametrize("picture", sorted((ROOT / "workflows").glob("*.jpg")), ids=lambda path: path.stem)
def test_thumbnails_are_small_squares(picture):
    with Image.open(picture) as image:
        assert image.width == image.height and 256 <= image.width <= 512
    assert picture.stat().st_size < 100_000


@pytest.fixture
def nodes(template):
    return json.loads(text_of(template))["nodes"]


@pytest.fixture
def note(nodes):
    (note,) = [node for node in nodes if node["type"] == "MarkdownNote"]
    return note


def widgets_of(node):
    """{name: value} of a saved node, and what its seed becomes after a run."""
    values, widgets = list(node["widgets_values"]), {}
    for name in [entry["name"] for entry in node["inputs"] if "widget" in entry]:
        widgets[name] = values.pop(0)
        if name == "seed":
            widgets["after a run"] = values.pop(0)
    return widgets


def all_of(nodes, kind):
    return [widgets_of(node) for node in nodes if node["type"] == kind]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_notes_are_readable(note):
    """Nodes 2.0 draws `code` blue on blue. Links on these colours have a contrast of 3.9 and more, as measured
    in both renderings under the dark and the light palette; on ComfyUI's own colour of notes it was 3.0."""
    assert "`" not in note["widgets_values"][0]
    assert {key: note[key] for key in NOTE_COLOURS} == NOTE_COLOURS


@pytest.mark.parametrize("template", TRIES, ids=lambda path: path.stem)
def test_notes_say_what_a_real_checkpoint_wants(nodes, note):
    """The settings here are the pocket model's; those that the published one wants are said."""
    (said,) = note["widgets_values"]
    for loader in all_of(nodes, "KinetographCogVideoXLoader"):
        assert guidance_of(nodes) == ("constant", 2)
        fun = "**constant** with cfg 6 and 50 steps"
        wanted = fun if "-fun-" in loader["model"] else "**dynamic cosine** with cfg 6"
        assert f"Real checkpoints want {wanted}" in said


@pytest.mark.parametrize("template", REAL, ids=lambda path: path.stem)
def test_notes_say_what_stays_in_the_loader(nodes, note):
    """Who chooses another folder of CogVideoX need not look for its VAE."""
    (said,) = note["widgets_values"]
    for kind in ("KinetographCogVideoXLoader", "KinetographPixArtLoader"):
        for loader in all_of(nodes, kind):
            assert loader["text_encoder"] == "t5xxl_fp16.safetensors"
            assert ('stays "' + OWN_FOLDER in said) == (loader["vae"] == OWN_FOLDER)


def guidance_of(nodes):
    """(way, scale) of the one node that samples."""
    places = {"KinetographVideoSampler": "guidance", "KinetographVideoContinue": "sampling"}
    (found,) = [
        (one[name], one[f"{name}.cfg"]) for kind, name in places.items() for one in all_of(nodes, kind)
    ]
    return found


@pytest.mark.parametrize("template", [ROOT / "workflows" / "svd_micro_conditioning.json"])
def test_two_motions_are_compared_from_the_same_noise(nodes, note):
    assert "the same noise" in note["widgets_values"][0]
    for kind in ("KinetographVideoSampler", "KinetographSVDConditioning"):
        first, second = all_of(nodes, kind)
        assert first["seed"] == second["seed"]
        assert first["after a run"] == second["after a run"] == "fixed"
