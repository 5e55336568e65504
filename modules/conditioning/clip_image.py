"""The picture as Stable Video Diffusion's CLIP encoder takes it: squeezed into a square, whole.

Stable Video Diffusion (arXiv 2311.15127). The width of the blur is that of scikit-image's antialiased
`resize`, the kernel and the grid those of generative-models (FrozenOpenCLIPImageEmbedder, through kornia);
diffusers' StableVideoDiffusionPipeline does the same.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # arXiv 2103.00020, openai/CLIP
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SMALLEST_SIGMA, SMALLEST_KERNEL = 0.001, 3
ROWS_AT_ONCE = 8  # of the square: they see neighbouring parts of the picture


def clip_pixels(
    image_bhwc: Tensor, size: int = CLIP_SIZE, advance: Callable[[], None] = lambda: None
) -> Tensor:
    """Pictures (b, h, w, 3 or more) in 0..1 as CLIP's input, float32 (b, 3, size, size), normalised.

    The whole picture is squeezed into the square, nothing is cut. Bicubic overshoot is kept, as in training.
    `advance` is called after each picture. Raises ValueError for a picture thinner than 2 pixels.
    """
    height, width = image_bhwc.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(
            f"CLIP needs a picture of at least 2x2 pixels: got {width}x{height}. Use a larger one."
        )
    mean, std = (
        torch.tensor(values, device=image_bhwc.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD)
    )
    squashed = []
    for picture_hwc in image_bhwc[..., :3]:
        squashed.append(squash(picture_hwc, size))
        advance()
    return (torch.stack(squashed).movedim(-1, 1) - mean) / std


def squash(image_hwc: Tensor, size: int) -> Tensor:
    """(size, size, c): blurred as far as each axis shrinks, then bicubic from corner to corner."""
    down, across = (shrinking(length, size).to(image_hwc.device) for length in image_hwc.shape[:2])
    return contract(across, contract(down, image_hwc).movedim(1, 0)).movedim(1, 0)


def contract(weights_sn: Tensor, x_nmc: Tensor) -> Tensor:
    """The first axis through a matrix with few numbers beside its diagonal; float32 (s, m, c)."""
    out_smc = weights_sn.new_empty(len(weights_sn), *x_nmc.shape[1:])
    for rows_rn, out_rmc in zip(weights_sn.split(ROWS_AT_ONCE), out_smc.split(ROWS_AT_ONCE), strict=True):
        used = rows_rn.any(0).nonzero()
        start, stop = int(used[0]), int(used[-1]) + 1
        seen_nl = x_nmc[start:stop].float().reshape(stop - start, -1)
        out_rmc.copy_((rows_rn[:, start:stop] @ seen_nl).view(out_rmc.shape))
    return out_smc


def shrinking(length: int, size: int) -> Tensor:
    """The matrix, float32 (size, length), that blurs and resizes an axis: it blurs only where the resize looks.

    The Gaussian is the one that a shrink by `length / size` asks for, sigma (factor - 1) / 2, mirrored at the
    ends; the bicubic kernel repeats the ends.
    """
    kernel_k = gaussian(max((length / size - 1) / 2, SMALLEST_SIGMA)).double()
    half = len(kernel_k) // 2
    places_sx, weights_sx = cubic_taps(length, size)
    seen_sxk = (places_sx[..., None] + torch.arange(-half, half + 1)).abs()
    seen_sxk = torch.minimum(seen_sxk, 2 * (length - 1) - seen_sxk)
    matrix = torch.zeros(size, length, dtype=torch.float64)
    return matrix.scatter_add_(1, seen_sxk.flatten(1), (weights_sx[..., None] * kernel_k).flatten(1)).float()


def cubic_taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """(places, weights), each (size, 6), of PyTorch's own bicubic resize whose corners stay corners.

    A comb of 8 phases goes through it: each place that a pixel looks at, four in a row at most, has another phase.
    """
    comb_8n = torch.eye(8)[:, torch.arange(length) % 8]
    seen_8s = F.interpolate(comb_8n[None, None], size=(8, size), mode="bicubic", align_corners=True)[0, 0]
    middle_s = (torch.arange(size) * (length - 1)).div(max(size - 1, 1), rounding_mode="floor")
    places_sx = middle_s[:, None] + torch.arange(-2, 4)
    weights_sx = seen_8s.T.gather(1, places_sx % 8)
    is_there_sx = (places_sx >= 0) & (places_sx < length)
    return places_sx.clamp(0, length - 1), (weights_sx * is_there_sx).double()


def gaussian(sigma: float) -> Tensor:
    """A Gaussian of sum 1 over 4 sigma, at least 3 and an odd number of taps."""
    taps = int(max(4 * sigma, SMALLEST_KERNEL)) | 1
    distance = torch.arange(taps, dtype=torch.float32) - taps // 2
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    return weights / weights.sum()
