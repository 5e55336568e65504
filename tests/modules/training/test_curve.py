"""The curve of a training: losses stand where they belong, and samples below it."""

from PIL import Image, ImageColor

from kinetograph.modules.training import curve


def at(picture, x, y):
    return picture.getpixel((round(x), round(y)))


def test_the_last_loss_stands_at_its_step_and_height():
    """A fall from 1 to 0 in half of all steps ends in the middle, at the bottom of the plot."""
    picture = curve.draw_curve([1 - step / 50 for step in range(51)], 101)
    middle = curve.LEFT + (curve.WIDTH - curve.LEFT - curve.RIGHT) / 2
    assert at(picture, middle, curve.HEIGHT - curve.BOTTOM) == ImageColor.getrgb(curve.RAW)
    assert at(picture, curve.WIDTH - curve.RIGHT - 40, curve.TOP + 40) == ImageColor.getrgb(curve.PAPER)


def test_the_mean_looks_back_over_a_twentieth():
    losses = [float(step % 2) for step in range(100)]
    assert curve.running_mean(losses)[-1] == sum(losses[-5:]) / 5
    assert curve.running_mean([3.0]) == [3.0]


def test_one_loss_and_equal_losses_are_drawn():
    assert (
        curve.draw_curve([0.5], 1).size == curve.draw_curve([0.5] * 9, 9).size == (curve.WIDTH, curve.HEIGHT)
    )


def test_the_newest_samples_stand_last():
    colours = ["#ff0000", "#00ff00", "#0000ff", "#ffff00"]
    strips = [(step, Image.new("RGB", (8, 2), colour)) for step, colour in enumerate(colours)]
    whole = curve.with_samples(curve.draw_curve([1.0, 0.5], 2), strips)
    assert at(whole, curve.WIDTH / 2, whole.height - 5) == (255, 255, 0)
    assert at(whole, curve.WIDTH / 2, curve.HEIGHT + 5) == (0, 255, 0)
