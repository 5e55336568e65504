"""Inputs that several nodes ask for, in the same words."""

from .api import io


def fit_input() -> io.Combo.Input:
    """How a picture of another size becomes one of the clip's."""
    return io.Combo.Input(
        "fit",
        options=["crop", "stretch", "exact"],
        default="crop",
        tooltip="crop: cover the size and cut what hangs over; stretch: squeeze to the size; "
        "exact: refuse an image of another size.",
    )
