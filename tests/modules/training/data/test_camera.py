"""Camera movements: the specification's rectangles, and that what is seen moves as the name says."""

import numpy as np
import pytest
import torch

from kinetograph.modules.training.data.camera import MOVEMENTS, canvas, move_camera, rectangles

WHOLE, SMALL = (320, 512), (240, 384)
RECTANGLES = {
    "zoom_in": [(0, 0, *WHOLE), (13.333, 21.333, 293.333, 469.333), (40, 64, *SMALL)],
    "zoom_out": [(40, 64, *SMALL), (26.667, 42.667, 266.667, 426.667), (0, 0, *WHOLE)],
    "pan_right": [(40, 0, *SMALL), (40, 42.667, *SMALL), (40, 128, *SMALL)],
    "pan_left": [(40, 128, *SMALL), (40, 85.333, *SMALL), (40, 0, *SMALL)],
    "tilt_down": [(0, 64, *SMALL), (26.667, 64, *SMALL), (80, 64, *SMALL)],
    "tilt_up": [(80, 64, *SMALL), (53.333, 64, *SMALL), (0, 64, *SMALL)],
    "roll_clockwise": [(63.963, 102.341, 192.074, 307.318)] * 3,
    "roll_anticlockwise": [(63.963, 102.341, 192.074, 307.318)] * 3,
}


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_rectangles(movement):
    seen = rectangles(movement, 16, *WHOLE)
    assert len(seen) == 16
    for frame, wanted in zip((0, 5, 15), RECTANGLES[movement], strict=True):
        rectangle = seen[frame]
        found = rectangle.y, rectangle.x, rectangle.height, rectangle.width
        assert found == pytest.approx(wanted, abs=1e-3)
    angles = {"roll_clockwise": (-30, -10, 30), "roll_anticlockwise": (30, 10, -30)}.get(movement, (0, 0, 0))
    assert [seen[frame].angle for frame in (0, 5, 15)] == pytest.approx(angles)


def test_a_movement_that_is_none():
    with pytest.raises(ValueError, match="camera must be one of zoom_in, .* or empty: got 'pan'"):
        rectangles("pan", 16, *WHOLE)


def plane():
    """A still clip whose red is x and green is y: a pixel tells where it lay."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(128.0), indexing="ij")
    return torch.stack([x + 0.5, y + 0.5, 0 * x], -1).expand(16, -1, -1, -1)


def middle(frames):
    """(y, x) that the middle of each frame shows."""
    centre = frames[:, 23:25, 31:33].mean(dim=(1, 2))
    return centre[:, 1].numpy(), centre[:, 0].numpy()


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_every_pixel_shows_its_own_place(movement):
    """The frames equal the places of an own geometry: NumPy, with complex numbers for turns."""
    moved = move_camera(plane(), movement, 64, 48)
    assert moved.shape == (16, 48, 64, 3)
    for frame, rectangle in zip(moved, rectangles(movement, 16, 80, 128), strict=True):
        across = (np.arange(64) + 0.5) * rectangle.width / 64 - rectangle.width / 2
        down = (np.arange(48) + 0.5) * rectangle.height / 48 - rectangle.height / 2
        turned = (across[None, :] + 1j * down[:, None]) * np.exp(1j * np.radians(rectangle.angle))
        place = turned + complex(rectangle.x + rectangle.width / 2, rectangle.y + rectangle.height / 2)
        inside = (place.real > 1) & (place.real < 127) & (place.imag > 1) & (place.imag < 79)
        assert inside.mean() > 0.9
        assert np.abs(frame[..., 0].numpy() - place.real)[inside].max() < 1e-3
        assert np.abs(frame[..., 1].numpy() - place.imag)[inside].max() < 1e-3


def test_directions():
    """The camera goes where the name says, smoothly, without whole pixels."""
    for movement, axis, sign in (
        ("pan_right", 1, 1),
        ("pan_left", 1, -1),
        ("tilt_down", 0, 1),
        ("tilt_up", 0, -1),
    ):
        steps = np.diff(middle(move_camera(plane(), movement, 64, 48))[axis])
        assert (sign * steps > 0).all() and np.ptp(steps) < 1e-3
    # a clockwise camera: its right side is seen going down
    right = move_camera(plane(), "roll_clockwise", 64, 48)[:, 24, 60, 1].numpy()
    assert (np.diff(right) > 0).all()


def test_the_closest_view_is_as_sharp_as_the_clip():
    """On the canvas its rectangle has the pixels of the clip: a view from corner to corner is the canvas itself."""
    assert canvas(48, 33) == (64, 44)
    noise = torch.rand(2, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    assert canvas(48, 36) == (64, 48)
    # 6 of 12 rows above, all columns to spare at its right
    assert (move_camera(noise, "pan_left", 48, 36)[1] - noise[1, 6:42, :48]).abs().max() < 1e-5
