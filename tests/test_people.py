"""What people read and look at is there: links of README and help pages, pictures, sample inputs."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "web" / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_within_the_repository_lead_somewhere(page):
    inside = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_readme_starts_with_a_small_moving_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    picture = ROOT / LINK.findall(text)[0]
    assert picture.stat().st_size < 600_000
    with Image.open(picture) as clip:
        assert clip.n_frames > 1


def test_readme_names_every_family():
    from kinetograph.modules.families import FAMILIES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [family.label for family in FAMILIES if family.label not in text] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "workflows").glob("*.jpg")), ids=lambda path: path.stem)
def test_thumbnails_are_small_squares(picture):
    with Image.open(picture) as image:
        assert image.width == image.height and 256 <= image.width <= 512
    assert picture.stat().st_size < 100_000
