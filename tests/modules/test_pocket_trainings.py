"""What the pocket configurations reached: each row belongs to its configuration, and a goal that was missed is told."""

import json
from pathlib import Path

import pytest

from kinetograph.modules.training.configuration import read_recipe

ROOT = Path(__file__).resolve().parents[2]
KNOWN = json.loads((ROOT / "pocket" / "trainings.json").read_text(encoding="utf-8"))
AT_MOST = ("ratio", "area_at_0", "off_path")


def missed(stage):
    """Goals that a stage was not measured for, or missed."""
    reached = stage["reached"]
    return [
        name
        for name, goal in stage["goals"].items()
        if name not in reached or (reached[name] > goal if name.endswith(AT_MOST) else reached[name] < goal)
    ]


@pytest.mark.parametrize("stage", KNOWN["stages"], ids=lambda stage: Path(stage["configuration"]).stem)
def test_a_row_is_of_its_configuration(stage):
    recipe = read_recipe(ROOT / stage["configuration"])
    assert stage["steps"] == recipe.steps.total and stage["seconds"] > 0
    assert not missed(stage) or "not" in stage["note"], missed(stage)


def test_every_configuration_is_there_or_told_why_not():
    names = {path.stem for path in (ROOT / "configs" / "training" / "pocket").glob("*.toml")}
    run = {Path(stage["configuration"]).stem for stage in KNOWN["stages"]}
    assert run | set(KNOWN["not_run"]) == names and not run & set(KNOWN["not_run"])
    assert all(KNOWN["not_run"].values())
