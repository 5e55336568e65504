"""Frames of a clip that are given, not sampled: which ones, and how a sampler is told.

At each step ExVideo's pipeline (arXiv 2406.14130; diffsynth SVDVideoPipeline, `mask_frame_ids`) overwrites
the latents of chosen frames with re-noised encodings. That is inpainting with a mask of whole frames, which
the samplers of the host do.
"""

import re

import torch
from torch import Tensor

SHOWN = 40  # characters of what was not understood


def parse_frames(text: str) -> tuple[int, ...]:
    """Frame numbers from text such as "0, 31" or "0 -1"; ValueError says what was not understood."""
    words = re.split(r"[\s,;]+", text.strip(" \t\n\r,;"))
    wrong = [word for word in words if not re.fullmatch(r"[+-]?\d{1,9}", word, re.ASCII)]
    if wrong:
        raise ValueError(
            f"frames must be whole numbers such as 0, 31 or 0, -1 (-1 is the last): got {wrong[0][:SHOWN]!r}."
        )
    return tuple(int(word) for word in words)


def resolve_frames(numbers: tuple[int, ...], num_frames: int) -> tuple[int, ...]:
    """Numbers from 0 in a clip of `num_frames`; negative ones count from the end.

    Raises ValueError for a frame outside the clip and for one named twice.
    """
    outside = [number for number in numbers if not -num_frames <= number < num_frames]
    if outside:
        raise ValueError(
            f"The clip has {num_frames} frames, 0 to {num_frames - 1} or {-num_frames} to -1 from the end: "
            f"got frame {outside[0]}."
        )
    frames = tuple(number % num_frames for number in numbers)
    twice = next((frame for at, frame in enumerate(frames) if frame in frames[:at]), None)
    if twice is not None:
        raise ValueError(f"Each frame takes one picture: frame {twice} is named twice in {numbers}.")
    return frames


def pin_frames(samples_nchw: Tensor, pinned_nchw: Tensor, frames: tuple[int, ...], num_frames: int) -> Tensor:
    """A copy of latents (clips * num_frames, c, h, w) with `pinned_nchw` at `frames` of every clip."""
    pinned_clips = samples_nchw.unflatten(0, (-1, num_frames)).clone()
    pinned_clips[:, list(frames)] = pinned_nchw.to(samples_nchw)
    return pinned_clips.flatten(0, 1)


def pin_mask(
    noise_mask: Tensor | None, samples_nchw: Tensor, frames: tuple[int, ...], num_frames: int
) -> Tensor:
    """A denoise mask (n, 1, h, w), 0 at the pinned frames of every clip and 1, or what it was, elsewhere.

    A mask that is there keeps its own size (pixels or latent cells) and is repeated over the frames, as the
    host's samplers would do.
    """
    n, _, h, w = samples_nchw.shape
    mask = samples_nchw.new_ones(1, 1, h, w) if noise_mask is None else noise_mask
    mask_n1hw = mask.reshape(-1, 1, *mask.shape[-2:])
    rows = torch.arange(n) % mask_n1hw.shape[0]
    is_free = torch.ones(num_frames)
    is_free[list(frames)] = 0
    return mask_n1hw[rows] * is_free.repeat(n // num_frames).to(mask_n1hw).view(n, 1, 1, 1)
