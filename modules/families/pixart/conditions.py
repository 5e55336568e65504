"""What a PixArt transformer is told beside noise and timestep: a prompt, and to 1024-MS the size of the picture."""

from typing import Any

import torch
from torch import Tensor

from ..clips import clip_frames, per_frame
from ..family import Clip, Request, Shared
from ..text import check_text_width
from .config import GRID, MAX_TEXT_TOKENS, PixArtConfig


def conditions(config: PixArtConfig, request: Request) -> dict[str, Any]:
    """Text features, once for all frames where they have one text; the frames of a clip; what 1024-MS is told.

    ValueError for a conditioning of another width, for other clips, or with what PixArt has no channels for.
    """
    check_kind(config, request)
    frames = clip_frames(request)
    named: dict[str, Any] = {"num_video_frames": frames}
    if request.context is not None:
        context = check_text_width(request.context, config.text_dim, f"PixArt {config.variant}")
        texts = per_frame(context, request, frames, "prompts")
        named["context"] = Shared(texts) if len(texts) == 1 else texts
    if config.sized:
        named["size_n3"] = size_of(request)
    return named


def check_kind(config: PixArtConfig, request: Request) -> None:
    """ValueError for pictures, masks and clips in a conditioning: they would change nothing."""
    if request.beside != "nothing":
        raise ValueError(
            f"PixArt {config.variant} makes pictures and clips from text and takes no {request.beside} conditioning: connect "
            "the prompts directly to the sampler. To begin from a clip, encode it and sample with a denoise below 1."
        )


def size_of(request: Request) -> Tensor:
    """Height and width in pixels and height / width (1, 3): those that the conditioning names, else the latents' own."""
    height, width = (
        request.numbers.get(name, cells * GRID.stride_hw)
        for name, cells in zip(("height", "width"), request.noise_shape[-2:], strict=True)
    )
    return torch.tensor([[height, width, height / width]])


def inputs(config: PixArtConfig, clip: Clip) -> dict[str, Any]:
    """Arguments of the transformer for a batch of clips: noise, and a prompt of as many tokens as there may be."""
    width, height = GRID.latent_size(clip.width, clip.height)
    rows = clip.count * clip.num_frames
    size = [float(clip.height), float(clip.width), clip.height / clip.width]
    return {
        "x_nchw": torch.randn(rows, config.in_channels, height, width),
        "timestep_n": torch.randint(0, 1000, (1,)).expand(rows).float(),
        "context_gld": torch.randn(clip.count, MAX_TEXT_TOKENS, config.text_dim),
        "num_video_frames": clip.num_frames,
        **({"size_n3": torch.tensor([size]).expand(rows, -1)} if config.sized else {}),
    }
