"""What the registry hands to users: the pack and the pocket weights, small, and nothing of how they were made."""

import re
import zipfile

import pytest

from kinetograph.tests import archive

ROOT = archive.ROOT
MEGABYTE = 10**6
MOST, MOST_BESIDE_WEIGHTS = 60 * MEGABYTE, 3 * MEGABYTE
REQUIRED = {
    "__init__.py",
    "pyproject.toml",
    "requirements.txt",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
}
REQUIRED |= {"dev.py", "workflows/input/kinetograph_first_frame.png"}
FOLDERS = ("modules", "nodes", "tools", "web", "workflows")  # what nodes, templates and dev.py are made of
TOP = {*REQUIRED, *FOLDERS, "pocket", "configs", "locales", "subgraphs", "requirements-training.txt"}
MAKING = re.compile(
    r"(^|/)(tests?|benchmarks|scores?|runs|training|train_\w+|loss|test_\w+|\.\w+)(\.\w+)?(/|$)"
)
# nodes that train, what they call, and the configurations that ship
NOT_A_MODEL = re.compile(r"modules/training/|nodes/(\w+/)?training|configs/training/(?!pocket)")
LINK = re.compile(r"\]\(([^)#\s]+)\)")
ELSEWHERE = {"pocket/README.md", "benchmarks/results/README.md"}  # of interest to who reads the repository


@pytest.fixture(scope="module")
def names():
    return archive.names()


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """{name: compressed size}"""
    with zipfile.ZipFile(archive.build(tmp_path_factory.mktemp("archive") / "node.zip")) as file:
        return {entry.filename: entry.compress_size for entry in file.infolist()}


def test_the_archive_is_small(sizes):
    weights = sum(size for name, size in sizes.items() if name.startswith(archive.WEIGHTS))
    rest = sum(sizes.values()) - weights
    assert 0 < rest <= MOST_BESIDE_WEIGHTS and weights + rest <= MOST, f"{rest} beside {weights} of weights"


def test_what_the_pack_needs_is_in_it(names):
    assert set(names) >= REQUIRED
    for folder in FOLDERS:
        there = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        there = {name for name in there if "__pycache__" not in name}
        assert there and there <= set(names), folder


def test_nothing_else_is_in_it(names):
    assert {name.partition("/")[0] for name in names} <= {name.partition("/")[0] for name in TOP}
    assert [name for name in names if MAKING.search(name) and not NOT_A_MODEL.match(name)] == []


def test_of_the_pocket_models_the_weights_are_in_it_alone(names):
    pocket = {name for name in names if name.startswith("pocket/")}
    weights = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pocket").rglob("*.safetensors")}
    weights = {name for name in weights if not name.startswith("pocket/runs/")}
    assert len(weights) > 10 and weights <= pocket
    assert {name for name in pocket - weights if not name.endswith("config.json")} == set()


def test_what_readme_shows_is_in_it(names):
    links = {
        link for link in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if "://" not in link
    }
    assert links - ELSEWHERE <= set(names)


def test_names_are_plain(names):
    """The registry's tool reads git's list line by line, in which other names are quoted."""
    assert [name for name in names if not re.fullmatch(r"[\w./-]+", name, re.ASCII)] == []
