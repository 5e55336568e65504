"""Files beside EasyAnimate v1's: each is called by its name, and none of v1's own is taken for one of them."""

import pytest

from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families.easyanimate.strangers import STRANGERS as KNOWN
from kinetograph.tests.checkpoints import BY_NAME, KEY_LISTS, write_sparse
from kinetograph.tests.easyanimate_strangers import STRANGERS


@pytest.mark.parametrize("label", STRANGERS)
def test_strangers_are_called_by_their_names(label, tmp_path, capsys):
    shapes, words = STRANGERS[label]
    path = write_sparse(tmp_path / "any.safetensors", shapes())
    assert main([str(path)]) == 1
    text = capsys.readouterr().out
    assert f"family      {label.split(' (')[0]}\n" in text
    assert f"any.safetensors {words}" in text


def test_every_stranger_is_met():
    assert {label.split(" (")[0] for label in STRANGERS} == {stranger.label for stranger in KNOWN}


@pytest.mark.parametrize("listed", KEY_LISTS, ids=lambda listed: listed.name)
def test_no_published_file_of_ours_is_a_stranger(listed):
    """Of any family, and EasyAnimate v1's training saves two in one."""
    shapes = {**listed.shapes, **BY_NAME["easyanimate-v1-mm"].shapes}
    assert [stranger.label for stranger in KNOWN if stranger.fits(shapes)] == []


@pytest.mark.parametrize("name", ["pixart-512", "easyanimate-v1-mm"])
def test_a_file_that_lacks_a_key_says_what_it_looks_like(name, tmp_path):
    listed = next(listed for listed in KEY_LISTS if listed.name == name)
    shapes = dict(listed.shapes)
    del shapes[next(key for key in shapes if key.startswith("transformer_blocks.3.") and ".ff.net.2." in key)]
    report = examine(write_sparse(tmp_path / "a.safetensors", {**shapes, "of.nobody": (2,)}))
    assert (
        not report.complete
        and f"looks like {'PixArt' if 'pixart' in name else 'EasyAnimate'}" in report.to_text()
    )
