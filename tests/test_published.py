"""What the Comfy Registry asks of a pack, as its specification and `comfy node validate` and `publish` say it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = ("OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS")
ACCELERATORS = ("NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal")
ADDRESS = re.compile(r"github(?:usercontent)?\.com/[\w.-]+/ComfyUI-Kinetograph\b")
ENTRY = re.compile(r"^## (.*)$", re.M)


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project(pyproject):
    return pyproject["project"]


@pytest.fixture(scope="module")
def comfy(pyproject):
    return pyproject["tool"]["comfy"]


def test_name_and_version(project):
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9]+)*", project["name"], re.I) and len(project["name"]) < 100
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert 20 < len(project["description"]) < 200


def test_licence_is_a_table_that_names_a_file(project):
    assert set(project["license"]) == {"file"} and (ROOT / project["license"]["file"]).is_file()


def test_what_it_runs_on(project, comfy):
    ranges = r"[<>=~!]=?\s*\d+(\.\d+)*(,\s*[<>=~!]=?\s*\d+(\.\d+)*)*"
    assert re.fullmatch(ranges, project["requires-python"])
    assert re.fullmatch(ranges, comfy["requires-comfyui"])
    said = [line.split(" :: ", 1) for line in project["classifiers"]]
    systems = [rest for first, rest in said if first == "Operating System"]
    assert systems and all(rest.startswith(SYSTEMS) for rest in systems)
    environments = [rest for first, rest in said if first == "Environment"]
    assert environments and all(rest.removeprefix("GPU :: ") in ACCELERATORS for rest in environments)


def test_publisher_and_title(comfy):
    assert re.fullmatch(r"[a-z0-9-]+", comfy["PublisherId"]) and comfy["DisplayName"]


def test_dependencies_are_those_of_requirements(project):
    assert sorted((ROOT / "requirements.txt").read_text().split()) == sorted(project["dependencies"])


def test_the_address_stands_in_one_place(project, comfy):
    """Who publishes writes it there, and nowhere else."""
    home = project["urls"]["Repository"]
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main"
    assert re.fullmatch(r"https://github\.com/[\w.-]+/ComfyUI-Kinetograph", home)
    assert project["urls"] == {
        "Repository": home,
        "Documentation": f"{home}#readme",
        "Bug Tracker": f"{home}/issues",
    }
    assert (comfy["Icon"], comfy["Banner"]) == (f"{raw}/assets/icon.png", f"{raw}/assets/banner.png")
    texts = [
        path for kind in ("*.md", "*.py", "*.json", "*.js", "*.yml") for path in ROOT.glob(f"[!.]*/**/{kind}")
    ]
    texts += [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.yml")]
    assert len(texts) > 300
    assert [
        path for path in texts if ADDRESS.search(path.read_text(encoding="utf-8", errors="replace"))
    ] == []


def test_pictures_are_of_the_sizes_that_the_registry_shows():
    with Image.open(ROOT / "assets" / "icon.png") as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / "assets" / "banner.png") as banner:
        assert banner.width * 9 == banner.height * 21
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "assets").glob("*.png"))


def test_the_changelog_has_one_entry_a_version_the_newest_first(project):
    found = ENTRY.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    versions = [tuple(map(int, entry.split("."))) for entry in found]
    assert found[0] == project["version"]
    assert versions == sorted(set(versions), reverse=True)


def test_the_registry_finds_nothing_to_complain_of():
    """Its own look for eval, exec and statements behind semicolons, without our exceptions."""
    rules = [
        "check",
        "--isolated",
        "--ignore-noqa",
        "--select",
        "S102,S307,E702",
        "--exclude",
        ".cache,.venv",
    ]
    done = subprocess.run([sys.executable, "-m", "ruff", *rules, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_new_version_on_main_is_published_and_nothing_else():
    action = yaml.safe_load((ROOT / ".github" / "workflows" / "publish_action.yml").read_text())
    events = action[True]  # YAML's word for `on`
    assert events["push"] == {"branches": ["main"], "paths": ["pyproject.toml"]}
    assert set(events) == {"push", "workflow_dispatch"}
    (job,) = action["jobs"].values()
    *_, guard, last = job["steps"]
    assert last["uses"].startswith("Comfy-Org/publish-node-action@")
    assert last["with"] == {"personal_access_token": "${{ secrets.REGISTRY_ACCESS_TOKEN }}"}
    assert "pyproject.toml" in guard["run"]  # a pack with the placeholder is not sent
