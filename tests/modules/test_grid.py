"""How many frames a LATENT stands for, whatever a node between has done to it."""

import numpy
import pytest
import torch

from kinetograph.modules.families.cogvideox.config import GRID
from kinetograph.modules.grid import told_clips


def decoded(latents):
    """What the base models' VAE gives: an even number of latents has no frame that stands alone."""
    return 4 * latents - 3 * (latents % 2)


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 13])
def test_a_number_that_fits_is_taken(latents):
    for told in range(4 * latents - 3, decoded(latents) + 1):
        assert GRID.told_frames(latents, told, decoded(latents)) == (told, "")


@pytest.mark.parametrize("told", [numpy.int64(14), torch.tensor(14)])
def test_any_kind_of_integer_is_a_number(told):
    assert GRID.told_frames(4, told, 16) == (14, "")
    assert told_clips(28, told) == (14, "The latent was taken for 2 clips of 14 frames.")


@pytest.mark.parametrize("latents, told", [(10, 17), (3, 17), (4, 12), (4, 17), (3, 10), (3, 12)])
def test_a_number_that_cannot_be_is_ignored_and_named(latents, told):
    frames, note = GRID.told_frames(latents, told, decoded(latents))
    assert frames == 4 * latents - 3
    assert f"num_frames={told}," in note and f"its {latents} latent frames stand for {frames}" in note
    assert (f"to {decoded(latents)} frames" in note) == (latents % 2 == 0)


@pytest.mark.parametrize("told", [0, -13, 13.0, "13", True, [13], torch.ones(2), object(), "x" * 1000])
def test_what_is_no_number_is_ignored_and_named(told):
    frames, note = GRID.told_frames(4, told, 16)
    assert frames == 13 and "num_frames=" in note and len(note) < 200
    frames, note = told_clips(28, told)
    assert frames == 28 and "num_frames=" in note and "one clip of 28 frames" in note and len(note) < 200


def test_silence_is_named_only_where_it_leaves_a_choice():
    assert GRID.told_frames(5, None, 17) == (17, "")
    assert GRID.told_frames(4, None, 13) == (13, "")
    frames, note = GRID.told_frames(4, None, 16)
    assert frames == 13 and "does not say" in note and "taken for 13 frames" in note and "up to 16" in note


def test_frames_on_the_batch_axis_are_whole_clips():
    assert told_clips(14, 14) == (14, "") and told_clips(1, None) == (1, "")
    assert told_clips(28, 14) == (14, "The latent was taken for 2 clips of 14 frames.")
    frames, note = told_clips(28, None)
    assert frames == 28 and "does not say" in note and "one clip of 28 frames" in note


@pytest.mark.parametrize("total, told", [(5, 14), (15, 14), (13, 14), (27, 14)])
def test_parts_of_clips_are_refused(total, told):
    with pytest.raises(
        ValueError, match=f"holds {total} frames but says that a clip has {told}.*whole clips"
    ):
        told_clips(total, told)
