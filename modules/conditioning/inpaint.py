"""A clip of which something is known: the mask over it, what a VAE sees of it, and the mask over its latents.

CogVideoX-Fun InP (aigc-apps/VideoX-Fun, pipeline_cogvideox_fun_inpaint and its utils). Frames are (f, h, w, c) in
0..1, masks (f, h, w) with 1 where the clip is to be made anew.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class KnownClip:
    """Frames (f, h, w, 3) in 0..1 and the mask (f, h, w) of what is to be made anew; it may have greys."""

    frames: Tensor
    mask: Tensor

    @property
    def is_unknown(self) -> bool:
        """Whether all of it is to be made anew: the mask is white everywhere, in 8 bits."""
        return bool(((self.mask * 255).round() == 255).all())

    @property
    def hidden(self) -> Tensor:
        """The mask without greys, (f, h, w): 1 from 0.5 on."""
        return (self.mask >= 0.5).to(self.mask)

    def pixels(self) -> Tensor:
        """(f, h, w, 3) in 0..1 of what is known, black elsewhere."""
        return torch.where(self.mask[..., None] < 0.5, self.frames, 0.0)

    def dimmed(self) -> Tensor:
        """(f, h, w, 3) in 0..1, the darker the whiter the mask is there."""
        return self.frames * (1 - self.mask[..., None])


def whole_mask(frames: Tensor) -> Tensor:
    """A mask of frames (f, h, w, c) that are all to be made anew."""
    return frames.new_ones(frames.shape[:3])


def known_ends(start_fhwc: Tensor | None, end_fhwc: Tensor | None, num_frames: int) -> KnownClip:
    """A clip that starts with the given frames and, where there are some, ends with others.

    Between them lies the first frame, which the mask hides. ValueError for an end without a start, and for more
    frames than the clip has.
    """
    if start_fhwc is None:
        raise ValueError("An end image needs a start image: connect start_images, too.")
    count, at_end = len(start_fhwc), 0 if end_fhwc is None else len(end_fhwc)
    if count + at_end > num_frames:
        raise ValueError(
            f"The clip has {num_frames} frames: got {count} start images and {at_end} for its end. Give fewer, or make "
            "a longer clip."
        )
    frames = start_fhwc[:1].repeat(num_frames, 1, 1, 1)
    frames[:count] = start_fhwc
    mask = whole_mask(frames)
    mask[:count] = 0
    if end_fhwc is not None:
        frames[-at_end:], mask[-at_end:] = end_fhwc, 0
    return KnownClip(frames, mask)


def spread_mask(mask_fhw: Tensor, num_frames: int, width: int, height: int) -> Tensor:
    """A mask for each frame: one for all, or one per frame. ValueError for another count or another size."""
    count, have_h, have_w = mask_fhw.shape
    if count not in (1, num_frames):
        raise ValueError(
            f"The mask has {count} frames, the clip {num_frames}: give one mask for all frames, or {num_frames}."
        )
    if (have_w, have_h) != (width, height):
        raise ValueError(
            f"The mask is {have_w}x{have_h}, the clip {width}x{height}: make both the same size."
        )
    return mask_fhw.expand(num_frames, -1, -1)


def noise_known(pixels: Tensor, strength: float, seed: int) -> Tensor:
    """Pixels in 0..1 with Gaussian noise on all that are not black, drawn on the CPU.

    `strength` is its standard deviation in -1..1, the range of the reference, which adds it to all that is not -1.
    """
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed)).to(pixels)
    return torch.where(pixels == 0, pixels, pixels + strength / 2 * noise)


def latent_mask(mask_fhw: Tensor, latent_frames: int, stride_hw: int) -> Tensor:
    """The mask over latent cells (1, 1, t, h, w), 1 where the clip is to be made anew.

    Frame 0 is resized by itself and the rest to the other latent frames, both trilinearly and without antialiasing:
    one known frame at the end of a clip so leaves no trace, only the clip that the VAE sees tells of it. That is how
    the models were trained.
    """
    size = mask_fhw.shape[1] // stride_hw, mask_fhw.shape[2] // stride_hw
    first = _resized(mask_fhw[:1], 1, size)
    if latent_frames == 1:
        return first
    return torch.cat([first, _resized(mask_fhw[1:], latent_frames - 1, size)], dim=2)


def _resized(mask_fhw: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    return F.interpolate(mask_fhw[None, None], size=(frames, *size), mode="trilinear", align_corners=False)


def covering_mask(mask_fhw: Tensor, latent_frames: int, stride_hw: int) -> Tensor:
    """The mask over latent cells (1, 1, t, h, w), 1 where any pixel of any frame is to be made anew.

    For samplers that put the known cells back at each step; frame 0 has a latent of its own.
    """
    size = mask_fhw.shape[1] // stride_hw, mask_fhw.shape[2] // stride_hw
    pieces = [mask_fhw[:1]] + list(mask_fhw[1:].chunk(latent_frames - 1) if latent_frames > 1 else [])
    cells = [F.adaptive_max_pool2d(piece.amax(0)[None, None], size) for piece in pieces]
    return torch.stack(cells, dim=2)
