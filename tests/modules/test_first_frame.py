"""The picture a clip starts from: fitted, drawn from its posterior, padded with silence."""

import pytest
import torch
from PIL import Image

from kinetograph.modules.conditioning.first_frame import fit_image, pad_frames, sample_posterior


def picture(height, width, count=1, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def checks(height, width):
    """Black and white squares: bicubic overshoots at each of their edges."""
    board = (torch.arange(height)[:, None] // 16 + torch.arange(width) // 16) % 2
    return board.float()[None, ..., None].expand(1, height, width, 3)


@pytest.mark.parametrize("size", [(160, 96), (24, 16)], ids=["grown", "shrunk"])
def test_a_fitted_picture_stays_between_black_and_white(size):
    """What a bicubic overshoots would reach the VAE as colours that no picture has."""
    fitted = fit_image(checks(64, 64), *size, "stretch")
    assert fitted.min() == 0 and fitted.max() == 1
    unclamped = torch.nn.functional.interpolate(
        checks(64, 64).movedim(-1, 1), size=size[::-1], mode="bicubic", antialias=True
    )
    assert unclamped.min() < -0.01 and unclamped.max() > 1.01, "the picture would overshoot"


def test_a_stretched_picture_is_pils():
    """Pillow's bicubic is antialiased too, in 8 bits."""
    pixels = (picture(50, 70)[0] * 255).byte()
    theirs = Image.fromarray(pixels.numpy()).resize((32, 40), Image.Resampling.BICUBIC)
    ours = fit_image(pixels[None] / 255, 32, 40, "stretch")[0]
    assert (
        ours * 255 - torch.frombuffer(bytearray(theirs.tobytes()), dtype=torch.uint8).view(40, 32, 3)
    ).abs().max() <= 1.5


def test_a_crop_covers_the_size_and_keeps_the_middle():
    wide = torch.zeros(1, 40, 120, 3)
    wide[:, :, 40:80] = 1
    tall = wide.movedim(1, 2)
    for pixels, size in ((wide, 40), (tall, 40), (wide, 20), (tall, 20)):
        fitted = fit_image(pixels, size, size, "crop")
        # the kernel of a shrunk edge sees a little of what was cut
        assert (fitted[:, 2:-2, 2:-2] > 0.99).all() and fitted.min() > 0.7
    assert fit_image(picture(37, 91), 48, 32, "crop").shape == (1, 32, 48, 3)


def test_a_picture_of_the_right_size_is_left_alone_and_exact_asks_for_it():
    pixels = picture(16, 24)
    assert fit_image(pixels, 24, 16, "exact") is pixels
    with pytest.raises(ValueError, match="is 24x16, the clip 32x16: resize the image"):
        fit_image(pixels, 32, 16, "exact")


def test_every_picture_is_fitted_by_itself_and_told_of():
    told, pixels = [], picture(30, 50, count=3)
    fitted = fit_image(pixels, 24, 16, "crop", lambda: told.append(1))
    assert len(told) == 3
    for number in range(3):
        assert torch.equal(
            fitted[number : number + 1], fit_image(pixels[number : number + 1], 24, 16, "crop")
        )


def test_a_draw_has_the_posteriors_mean_and_spread():
    mean, log_variance = torch.full((1, 2, 1, 200, 200), 3.0), torch.full((1, 2, 1, 200, 200), -2.0)
    drawn = sample_posterior(mean, log_variance, 5)
    assert drawn.mean().item() == pytest.approx(3, abs=0.01)
    assert drawn.std().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)
    assert torch.equal(drawn, sample_posterior(mean, log_variance, 5))
    assert not torch.equal(drawn, sample_posterior(mean, log_variance, 6))
    assert sample_posterior(mean, log_variance, None) is mean


def test_an_endless_variance_is_cut():
    mean = torch.zeros(1, 1, 1, 8, 8)
    loud, most = (sample_posterior(mean, torch.full_like(mean, value), 0) for value in (1000.0, 20.0))
    assert torch.equal(loud, most) and loud.isfinite().all()
    quiet, least = (sample_posterior(mean, torch.full_like(mean, value), 0) for value in (-1000.0, -30.0))
    assert torch.equal(quiet, least) and bool(quiet.any())


def test_silence_follows_the_first_frame():
    first = picture(4, 4).movedim(-1, 1)[:, :, None]
    padded = pad_frames(first, 5)
    assert padded.shape == (1, 3, 5, 4, 4)
    assert torch.equal(padded[:, :, :1], first) and not padded[:, :, 1:].any()
