"""ExVideo's contrast step against the formula of its own pipeline."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch

from kinetograph.modules.sampling.contrast import enhance_contrast


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """diffsynth's `post_process_latents`, taken out of its file: the pipeline needs much more to be imported."""
    spec = importlib.util.find_spec("diffsynth")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("diffsynth is not installed")
    path = Path(spec.submodule_search_locations[0]) / "pipelines" / "svd_video.py"
    named = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}
    alone = tmp_path_factory.mktemp("diffsynth") / "post_process.py"
    alone.write_text(ast.unparse(named["post_process_latents"]))
    spec = importlib.util.spec_from_file_location("post_process", alone)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda z_tchw, equalise, scale: module.post_process_latents(None, z_tchw, equalise, scale)


@pytest.fixture
def clip():
    """Frames whose means and spreads differ, as those of a clip that fades."""
    z_tchw = torch.randn((5, 4, 6, 7), generator=torch.Generator().manual_seed(0))
    return z_tchw * torch.linspace(1.5, 0.2, 5).view(-1, 1, 1, 1) + torch.linspace(0.4, -0.3, 5).view(
        -1, 1, 1, 1
    )


@pytest.mark.parametrize("equalise", [True, False])
@pytest.mark.parametrize("scale", [1.2, 1.0, 0.5])
def test_contrast_is_diffsynths(reference, clip, equalise, scale):
    ours = enhance_contrast(clip.clone(), scale, equalise)
    assert (ours - reference(clip.clone(), equalise, scale)).abs().max() <= 1e-6


def test_every_frame_gets_the_mean_and_the_spread_of_the_clip(clip):
    done = enhance_contrast(clip, 1.0, True)
    assert torch.allclose(done.mean((1, 2, 3)), clip.mean().expand(5), atol=1e-6)
    assert torch.allclose(done.std((1, 2, 3)), clip.std().expand(5), rtol=1e-5)
    biased = clip.std((1, 2, 3), keepdim=True, unbiased=False)
    wrong = (clip - clip.mean((1, 2, 3), keepdim=True)) / biased * clip.std() + clip.mean()
    assert (done - wrong).abs().max() > 1e-3


def test_the_latents_given_stay_as_they_are(clip):
    before = clip.clone()
    enhance_contrast(clip, 1.2, True)
    assert torch.equal(clip, before)


def test_a_frame_without_a_picture_comes_out_even_and_finite(clip):
    for value in (0.7, 0.0):
        clip[2] = value
        done = enhance_contrast(clip, 1.2, True)
        assert (done[2] - clip.mean() * 1.2).abs().max() <= 2e-3


def test_neutral_settings_change_nothing(clip):
    assert torch.equal(enhance_contrast(clip, 1.0, False), clip)
