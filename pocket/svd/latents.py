"""What the pocket autoencoder's latents are: a fixed linear map of each 8x8 cell, known before any training.

Three channels hold the cell's mean colour, measured from the ground; the fourth how the brightness leans, mostly
from left to right, which tells where in the cell an outline runs. So the UNet need not wait for the autoencoder.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ..shapes import GROUND

CELL = 8  # pixels
SCALE = 0.18215  # between what the autoencoder returns and what the UNet denoises
COLOUR_GAIN = 2.5  # scaled latent of a cell that differs from the ground by 1 in units of RGB 0..1
LEAN_GAIN = 12.0
LEAN_DOWN = 0.5  # weight of the lean from top to bottom, that from left to right being 1


def _kernel() -> Tensor:
    """(4, 3, 8, 8): from pixels in 0..1 to scaled latents."""
    at = (torch.arange(CELL) + 0.5) / CELL - 0.5
    lean = at[None, :] + LEAN_DOWN * at[:, None]
    kernel = torch.zeros(4, 3, CELL, CELL)
    for channel in range(3):
        kernel[channel, channel] = COLOUR_GAIN
        kernel[3, channel] = LEAN_GAIN * lean / 3
    return kernel / CELL**2


KERNEL = _kernel()


def latents_of(pictures_n3hw: Tensor) -> Tensor:
    """Scaled latents (n, 4, h/8, w/8) of pictures in -1..1."""
    ground = torch.tensor(GROUND).view(3, 1, 1)
    return conv2d(pictures_n3hw / 2 + 0.5 - ground, KERNEL, stride=CELL)


def preview_factors() -> tuple[list[list[float]], list[float]]:
    """Scaled latents to RGB in -1..1: one row a channel, and the bias; exact for the cell's mean."""
    rows = [[2 / COLOUR_GAIN if i == j else 0.0 for j in range(3)] for i in range(4)]
    return rows, [round(2 * g - 1, 4) for g in GROUND]
