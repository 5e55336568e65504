"""Start files of pocket trainings on the real host: the trainer opens each, and those of modules change nothing."""

import pytest
import torch

from kinetograph.modules.training.configuration import read_recipe
from kinetograph.pocket import starts
from kinetograph.pocket.parts import ROOT
from kinetograph.tests.host.workbench import Workbench

pytestmark = pytest.mark.newest
NAMED = [
    path
    for path in sorted((ROOT / "configs" / "training" / "pocket").glob("*.toml"))
    if "-start." in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def written(comfy_here, base):
    """Every start below the host's models, with norms that fit one clip; gone behind the tests."""
    Workbench()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "FITTED", 1)
        files = [starts.write_start(name, base / "models") for name in starts.STARTS]
    yield
    for file in files:
        file.unlink()


def subject_of(recipe):
    """What the trainer makes of a configuration's files."""
    from kinetograph.nodes.pipeline import subjects, training_models

    model, _ = training_models.load(recipe.model)
    subjects.check_part(model, recipe)
    with torch.inference_mode(False):
        return subjects.subject_of(model, recipe, torch.float32)


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_the_trainer_opens_a_start(written, path):
    recipe = read_recipe(path)
    network = subject_of(recipe).network
    assert all(p.isfinite().all() for p in network.parameters())
    if recipe.part.name != "motion_module":
        return
    norms = [p for name, p in network.named_parameters() if name.endswith("temporal_transformer.norm.weight")]
    closing = [p for name, p in network.named_parameters() if "temporal_transformer.proj_out." in name]
    assert len(norms) == 6 and all((p - 1).abs().max() > 0.1 for p in norms)
    assert len(closing) == 12 and not any(p.any() for p in closing)
