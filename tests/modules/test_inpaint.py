"""Known parts of a clip: what masks come to, what a VAE is shown, and what is refused, by the reference's rules."""

import math

import pytest
import torch
import torch.nn.functional as F

from kinetograph.modules.conditioning.inpaint import (
    KnownClip,
    covering_mask,
    known_ends,
    latent_mask,
    noise_known,
    spread_mask,
    whole_mask,
)

FRAMES, LATENTS = 13, 4


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def ends(start=None, end=None, frames=FRAMES):
    pictures = draw(6, 16, 16, 3)
    return known_ends(
        None if start is None else pictures[:start], pictures[6 - int(end or 0) :] if end else None, frames
    )


def over_cells(clip):
    """One number per latent frame; masks of whole frames have one."""
    cells = latent_mask(clip.hidden, LATENTS, 8)
    assert cells.shape == (1, 1, LATENTS, 2, 2)
    return [int(value) for value in 1 - cells[0, 0, :, 0, 0]]


@pytest.mark.parametrize(
    "start, end, known", [(1, False, [1, 0, 0, 0]), (1, True, [1, 0, 0, 0]), (4, False, [1, 1, 0, 0])]
)
def test_masks_of_whole_frames_are_as_odd_as_in_training(start, end, known):
    """A last frame leaves no trace in the mask, and of four first frames the last three count for a whole latent."""
    assert over_cells(ends(start, end)) == known


def test_masks_of_parts_are_the_references_resize():
    """Frame 0 by itself, the rest together, trilinear without antialiasing (aigc-apps/VideoX-Fun, resize_mask)."""
    mask = (draw(FRAMES, 32, 48, seed=3) > 0.5).float()
    known = 1 - mask[None, None]
    first = F.interpolate(known[:, :, :1], size=(1, 4, 6), mode="trilinear", align_corners=False)
    rest = F.interpolate(known[:, :, 1:], size=(3, 4, 6), mode="trilinear", align_corners=False)
    assert torch.equal(1 - latent_mask(mask, LATENTS, 8), torch.cat([first, rest], dim=2))


def test_a_single_picture_has_one_cell():
    assert latent_mask(torch.ones(1, 16, 16), 1, 8).shape == (1, 1, 1, 2, 2)


def test_ends_are_where_they_belong():
    pictures = draw(6, 16, 16, 3)
    clip = ends(3, True)
    assert torch.equal(clip.frames[:3], pictures[:3]) and torch.equal(clip.frames[-1], pictures[5])
    assert torch.equal(clip.frames[3:-1], pictures[:1].expand(FRAMES - 4, -1, -1, -1))
    assert clip.mask[:, 0, 0].tolist() == [0, 0, 0] + [1] * (FRAMES - 4) + [0]
    shown = clip.pixels()
    assert torch.equal(shown[:3], pictures[:3]) and not shown[3:-1].any()


@pytest.mark.parametrize(
    "start, end, frames, words",
    [
        (None, True, 13, "needs a start image"),
        (6, False, 5, "has 5 frames: got 6 start images and 0 for its end. Give fewer"),
        (5, True, 5, "got 5 start images and 1 for its end"),
    ],
)
def test_ends_that_no_clip_has_are_refused(start, end, frames, words):
    with pytest.raises(ValueError, match=words):
        ends(start, end, frames)


@pytest.mark.parametrize(
    "shape, words",
    [((2, 16, 16), "mask has 2 frames, the clip 13: give one mask for all frames, or 13"),
     ((13, 8, 16), "mask is 16x8, the clip 16x16")],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        spread_mask(torch.ones(shape), FRAMES, 16, 16)


def test_one_mask_is_for_all_frames():
    mask = draw(1, 16, 16)
    assert torch.equal(spread_mask(mask, 5, 16, 16), mask.repeat(5, 1, 1))


def test_greys_are_cut_at_a_half_but_only_white_is_all():
    """A grey mask that hides every pixel is no text to video: the reference asks for 255 before it cuts."""
    frames = draw(FRAMES, 16, 16, 3)
    grey = KnownClip(frames, torch.full((FRAMES, 16, 16), 0.6))
    assert not grey.is_unknown and grey.hidden.all() and not grey.pixels().any()
    assert KnownClip(frames, whole_mask(frames)).is_unknown
    # resized masks are white to rounding
    assert KnownClip(frames, whole_mask(frames) - 1e-6).is_unknown
    edge = torch.tensor([127 / 255, 0.5, 128 / 255]).view(3, 1, 1).expand(3, 16, 16)
    clip = KnownClip(frames[:3], edge)
    assert clip.hidden[:, 0, 0].tolist() == [0, 1, 1]
    assert torch.equal(clip.pixels()[0], frames[0]) and not clip.pixels()[1:].any()
    assert torch.allclose(clip.dimmed(), frames[:3] * (1 - edge[..., None]))


def test_noise_is_of_the_reference_strength_and_leaves_black_alone():
    """0.0563 in -1..1, on every number that is not -1: black pixels, and those that the mask hides, get none."""
    frames = draw(FRAMES, 64, 64, 3) * 0.8 + 0.1
    frames[:, :8] = 0
    frames[:, 8:16, :, 1] = 0
    clip = KnownClip(frames, torch.zeros(FRAMES, 64, 64))
    clip.mask[4:] = 1
    noise = 2 * (noise_known(clip.pixels(), 0.0563, seed=1) - clip.pixels())
    assert not noise[:, :8].any() and not noise[:, 8:16, :, 1].any() and not noise[4:].any()
    assert noise[:4, 16:].count_nonzero() > 0.999 * noise[:4, 16:].numel()
    assert noise[:4, 8:16, :, 0].count_nonzero() > 0
    assert noise[:4, 16:].std().item() == pytest.approx(0.0563, rel=0.02)
    assert abs(noise[:4, 16:].mean().item()) < 4 * 0.0563 / math.sqrt(noise[:4, 16:].numel())
    assert torch.equal(noise_known(frames, 0.0563, 1), noise_known(frames, 0.0563, 1))
    assert not torch.equal(noise_known(frames, 0.0563, 1), noise_known(frames, 0.0563, 2))


def test_a_covering_mask_lets_no_hidden_pixel_out():
    """For samplers that put known cells back: a cell is known only where all of its 4x8x8 pixels are."""
    mask = torch.zeros(FRAMES, 16, 24)
    mask[0, 3, 9] = mask[6, 15, 0] = 1
    cells = covering_mask(mask, LATENTS, 8)[0, 0]
    expected = torch.zeros(LATENTS, 2, 3)
    expected[0, 0, 1] = expected[2, 1, 0] = 1
    assert torch.equal(cells, expected)
    assert torch.equal(covering_mask(mask[:1], 1, 8)[0, 0], expected[:1])
