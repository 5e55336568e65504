"""Which frames are pinned, and what the latents and the mask then hold."""

import pytest
import torch

from kinetograph.modules.conditioning.pinned_frames import parse_frames, pin_frames, pin_mask, resolve_frames


@pytest.mark.parametrize(
    "text, numbers",
    [("0", (0,)), ("0, 31", (0, 31)), ("0 -1", (0, -1)), (" 3;\n7,, +9 ,", (3, 7, 9)), ("-0", (0,))],
)
def test_numbers_are_read(text, numbers):
    assert parse_frames(text) == numbers


@pytest.mark.parametrize("text, word", [("", "''"), ("0, x", "'x'"), ("1.5", "'1.5'"), ("0-3", "'0-3'")])
def test_other_text_is_refused_by_name(text, word):
    with pytest.raises(ValueError, match=f"whole numbers .* got {word}"):
        parse_frames(text)


@pytest.mark.parametrize("text", ["²", "٣", "9" * 10])
def test_odd_digits_and_endless_ones_are_refused(text):
    with pytest.raises(ValueError, match="whole numbers"):
        parse_frames(text)


def test_negative_numbers_count_from_the_end():
    assert resolve_frames((0, -1, -25, 3)[:2], 25) == (0, 24)
    assert resolve_frames((-25, 24), 25) == (0, 24)


@pytest.mark.parametrize("number", [25, -26])
def test_frames_outside_the_clip_are_refused(number):
    with pytest.raises(ValueError, match=f"25 frames, 0 to 24 or -25 to -1 .* got frame {number}"):
        resolve_frames((0, number), 25)


def test_a_frame_named_twice_is_refused_however_it_is_written():
    with pytest.raises(ValueError, match="frame 24 is named twice"):
        resolve_frames((24, 0, -1), 25)


def test_latents_are_pinned_in_every_clip_and_the_input_stays():
    samples = torch.randn(2 * 5, 4, 3, 2)
    before, pinned = samples.clone(), torch.randn(2, 4, 3, 2)
    result = pin_frames(samples, pinned, (4, 1), 5)
    assert torch.equal(samples, before)
    for clip in (0, 5):
        assert torch.equal(result[[clip + 4, clip + 1]], pinned)
    free = [0, 2, 3, 5, 7, 8]
    assert torch.equal(result[free], samples[free])


def test_mask_is_zero_where_pinned_and_one_elsewhere():
    mask = pin_mask(None, torch.zeros(2 * 3, 4, 5, 7), (1,), 3)
    assert mask.shape == (6, 1, 5, 7)
    assert mask.flatten(1).amin(1).tolist() == mask.flatten(1).amax(1).tolist() == [1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    "shape", [(40, 56), (1, 40, 56), (1, 1, 40, 56), (6, 40, 56), (6, 1, 5, 7), (2, 1, 5, 7)]
)
def test_a_mask_that_is_there_still_holds_elsewhere(shape):
    existing = torch.rand(shape)
    mask = pin_mask(existing, torch.zeros(2 * 3, 4, 5, 7), (0,), 3)
    flat = existing.reshape(-1, *shape[-2:])
    assert mask.shape == (6, 1, *shape[-2:])
    for row in range(6):
        wanted = torch.zeros(shape[-2:]) if row % 3 == 0 else flat[row % len(flat)]
        assert torch.equal(mask[row, 0], wanted)
