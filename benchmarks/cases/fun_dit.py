"""CogVideoX-Fun's 2B InP transformer beside diffusers' class of as many channels: time, and peak memory at full size.

diffusers has none of Fun's positions: its own table, resized as Fun resizes it, takes the place of those it would make
anew. Both get the same weights.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

TOLERANCE = 1e-4  # float32, two blocks, weights of 0.05: rounding alone
GIB = 2**30
TEXT_TOKENS = 226
PUBLISHED_HEADS = 30  # of 2B: a width of 1920
NATIVE = (13, 30, 45)  # tokens along time, height and width of the positions

Size = tuple[int, int, int]  # latent frames, height and width in cells
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, timestep, context) -> v


def times(setting: Setting) -> Iterator[Row]:
    """Two blocks of width 512, at a size that the positions were not made for."""
    for latents in (4, 13):
        size = latents, 12, 16
        models, absent = _build(8, size, setting, torch.float32, setting.device)
        values = _inputs(1, size, torch.float32, setting.device)
        with torch.inference_mode():
            outputs = {name: model(*values) for name, model in models.items()}
        parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
        works = {name: partial(model, *values) for name, model in models.items()}
        yield from time_rows(f"{latents} latent frames of 128x96", works, setting, parity, absent)


def counts(setting: Setting) -> Iterator[Row]:
    """Peak at the width of 2B on meta tensors, both halves of guidance."""
    size = 13, 48, 84
    models, absent = _build(PUBLISHED_HEADS, size, setting, torch.bfloat16, "meta")
    values = _inputs(2, size, torch.bfloat16, "meta")
    with torch.inference_mode():
        samples = {name: [peak_live_bytes(partial(model, *values)) / GIB] for name, model in models.items()}
    yield Row("2B-InP, 49 frames 672x384, CFG 2", "peak GiB", samples, absent=absent)


def _build(
    heads: int, size: Size, setting: Setting, dtype: torch.dtype, device: str
) -> tuple[dict[str, Forward], dict[str, str]]:
    """Forwards with the same random weights, and the peers that are absent."""
    config = ours.config(
        "cogvideox", "diffusion_model", num_heads=heads, num_layers=2, in_channels=33, rotary=False
    )
    model = ours.network("cogvideox", "diffusion_model", config, dtype, device)
    ours.draw(model, 0.05)
    weights = model.state_dict()
    made, absent = peers.build_present(
        {"diffusers": _diffusers}, setting, config, size, weights, dtype, device
    )
    return {OURS: lambda x, timestep, context: model(x, timestep, context), **made}, absent


def _diffusers(config: Any, size: Size, weights: Any, dtype: torch.dtype, device: str) -> Forward:
    build = partial(
        peers.load_diffusers().CogVideoXTransformer3DModel,
        num_attention_heads=config.num_heads,
        num_layers=config.num_layers,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
    )
    peer = peers.place(build, weights, dtype, device)
    _resize_positions(peer.patch_embed, size)

    def forward(x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return peer(x.transpose(1, 2), context, timestep, return_dict=False)[0].transpose(1, 2)

    return forward


def _resize_positions(embed: Any, size: Size) -> None:
    """Put Fun's positions of a size where diffusers keeps its own, so that it makes none anew."""
    latents, height, width = size
    table_ld: Tensor = embed.pos_embedding[0, TEXT_TOKENS:].float()
    volume = table_ld.unflatten(0, NATIVE).permute(3, 0, 1, 2)[None]
    volume = F.interpolate(volume, size=(NATIVE[0], height // 2, width // 2), mode="trilinear")
    image_ld = volume[0, :, :latents].permute(1, 2, 3, 0).flatten(0, 2)
    text_ld = image_ld.new_zeros(TEXT_TOKENS, image_ld.shape[1])
    embed.pos_embedding = torch.cat([text_ld, image_ld])[None]
    embed.sample_frames, embed.sample_height, embed.sample_width = 4 * latents - 3, height, width


def _inputs(batch: int, size: Size, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    return (
        ours.noise(1, dtype, device, batch, 33, *size),
        torch.full((batch,), 479.0, device=device),
        ours.noise(0, dtype, device, batch, TEXT_TOKENS, 4096),
    )
