"""What a clip looks like while it is still forming."""

from collections.abc import Sequence

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

STRIP_FRAMES = 4


def filmstrip(
    latents_cthw: Tensor, factors: Sequence[Sequence[float]], bias: Sequence[float] = (0.0, 0.0, 0.0)
) -> Image.Image:
    """A few frames side by side, colours by a linear map (channels, 3) and a bias from latents to -1..1 RGB."""
    count = latents_cthw.shape[1]
    chosen = torch.linspace(0, count - 1, min(STRIP_FRAMES, count)).round().long()
    picked = latents_cthw[:, chosen.to(latents_cthw.device)].float()
    rgb = torch.einsum("cthw,cr->thwr", picked, torch.tensor(factors, device=picked.device))
    rgb = rgb + torch.tensor(bias, device=picked.device)
    pixels = rearrange(rgb, "t h w r -> h (t w) r").add(1).div(2).clamp(0, 1).mul(255)
    return Image.fromarray(pixels.byte().cpu().numpy())


def beneath(strips: Sequence[Image.Image], zoom: int = 8) -> Image.Image:
    """Strips one below the other, `zoom` pixels for each of theirs."""
    sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)))
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)
