"""Files that pocket trainings from nothing start with: each one that a configuration names can be written."""

import pytest

from kinetograph.modules.families import COGVIDEOX, PIXART
from kinetograph.modules.training.configuration import read_recipe
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket import starts
from kinetograph.pocket.parts import ROOT

RECIPES = [read_recipe(path) for path in sorted((ROOT / "configs" / "training" / "pocket").glob("*.toml"))]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_configuration_names_files_that_there_are(recipe):
    """Files of the pocket, starts, and what another configuration leaves."""
    told = {f"{name}.safetensors" for name in (*starts.STARTS, *(other.name for other in RECIPES))}
    for name in filter(None, vars(recipe.model).values()):
        assert name in told or (ROOT / "pocket" / "models" / name).exists(), name


def test_every_start_is_one_that_a_configuration_names():
    named = {name for recipe in RECIPES for name in vars(recipe.model).values()}
    assert {f"{name}.safetensors" for name in starts.STARTS} <= named


@pytest.mark.parametrize("name", [name for name in starts.STARTS if "motion" not in name.lower()])
def test_a_network_s_start_is_complete_and_full_precision(name, tmp_path):
    finding = detect(read_header(starts.write_start(name, tmp_path)), (COGVIDEOX, PIXART), "diffusion_model")
    assert not finding.check().missing and not finding.unexpected and finding.dtype == "float32"
