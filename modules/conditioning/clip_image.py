"""The picture as Stable Video Diffusion's two encoders want it: squashed for CLIP, noised for the VAE.

Stable Video Diffusion (arXiv 2311.15127). The width of the blur is that of scikit-image's antialiased
`resize`, the kernel and the grid those of generative-models (FrozenOpenCLIPImageEmbedder, through kornia);
diffusers' StableVideoDiffusionPipeline does the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # arXiv 2103.00020, openai/CLIP
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SMALLEST_SIGMA, SMALLEST_KERNEL = 0.001, 3


def clip_pixels(image_bhwc: Tensor, size: int = CLIP_SIZE) -> Tensor:
    """Pictures (b, h, w, 3 or more) in 0..1 as CLIP's input (b, 3, size, size), normalised.

    The whole picture is squeezed into the square, nothing is cut. Bicubic overshoot is kept, as in training.
    Raises ValueError for a picture thinner than 2 pixels.
    """
    height, width = image_bhwc.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(
            f"CLIP needs a picture of at least 2x2 pixels: got {width}x{height}. Use a larger one."
        )
    mean, std = (image_bhwc.new_tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    signed_bchw = image_bhwc[..., :3].movedim(-1, 1) * 2 - 1
    squashed = torch.cat([squash(picture, size) for picture in signed_bchw.split(1)])  # clips are long
    return ((squashed + 1) / 2 - mean) / std


def squash(image_bchw: Tensor, size: int) -> Tensor:
    """(b, c, size, size): blurred as far as each axis shrinks, then bicubic from corner to corner."""
    for axis in (-1, -2):
        image_bchw = _blur(image_bchw, axis, image_bchw.shape[axis] / size)
    return F.interpolate(image_bchw, size=(size, size), mode="bicubic", align_corners=True)


def _blur(image_bchw: Tensor, axis: int, factor: float) -> Tensor:
    """One axis through the Gaussian that a `factor`-fold shrink asks for: sigma (factor - 1) / 2."""
    kernel = gaussian(max((factor - 1) / 2, SMALLEST_SIGMA)).to(image_bchw)
    half = len(kernel) // 2
    x_bcnl = image_bchw.movedim(axis, -1)
    rows = x_bcnl.reshape(-1, 1, x_bcnl.shape[-1])
    blurred = F.conv1d(F.pad(rows, (half, half), mode="reflect"), kernel.view(1, 1, -1))
    return blurred.view(x_bcnl.shape).movedim(-1, axis)


def gaussian(sigma: float) -> Tensor:
    """A Gaussian of sum 1 over 4 sigma, at least 3 and an odd number of taps."""
    taps = int(max(4 * sigma, SMALLEST_KERNEL)) | 1
    distance = torch.arange(taps, dtype=torch.float32) - taps // 2
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    return weights / weights.sum()


def augment(image_bchw: Tensor, strength: float, seed: int) -> Tensor:
    """Pictures (b, c, h, w) in -1..1 with Gaussian noise of standard deviation `strength` added.

    One seeded CPU generator gives each picture in turn noise of its own shape (1, c, h, w), so the first is
    the same alone and among others, and on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *image_bchw.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=generator) for _ in image_bchw])
    return image_bchw + strength * noise.to(image_bchw)
