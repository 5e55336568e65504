"""Noise on the picture that a clip starts from: it lets the clip leave the picture further.

Stable Video Diffusion (arXiv 2311.15127, appendix D), noise augmentation.
"""

import torch
from torch import Tensor


def augment(image_bchw: Tensor, strength: float, seed: int) -> Tensor:
    """Pictures (b, c, h, w) in -1..1 with Gaussian noise of standard deviation `strength` added.

    One seeded CPU generator gives each picture in turn noise of its own shape (1, c, h, w), so the first is
    the same alone and among others, and on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *image_bchw.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=generator) for _ in image_bchw])
    return image_bchw + strength * noise.to(image_bchw)
