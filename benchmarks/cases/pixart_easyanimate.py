"""Blocks of PixArt with EasyAnimate v1's motion modules beside diffusers' modules put together: time, and peak memory.

Both get the same weights. diffusers has no such model: its PixArt runs on frames as a batch, and behind each
self-attention stand its group norm, its linear layers and its double self-attention over cells of tokens, as the original
code stacks them. The peak is that of a step with both halves of guidance in one batch.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

TOLERANCE = 1e-4
GIB = 2**30
LAYERS, WIDTH, HEADS = 2, 1152, 16
TEXT_TOKENS, TEXT_WIDTH = 120, 4096
GROUPS, MOTION_HEADS, CELL = 32, 8, 2
# (frames, latent cells on a side): what a step of each suite takes its time with; of 512x512 pixels and 80 frames
TIMED = ((16, 32),)
PUBLISHED = (80, 64)
GUIDED = 2  # halves of guidance in one batch
Forward = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # latents, timesteps, text, frames


def times(setting: Setting) -> Iterator[Row]:
    """Two blocks of the published width."""
    for frames, side in TIMED:
        x, timestep, text = inputs(frames, side, 1, setting.device)
        models, absent = build(setting, setting.device)
        with torch.inference_mode():
            outputs = {name: model(x, timestep, text, frames) for name, model in models.items()}
        parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
        works = {name: partial(model, x, timestep, text, frames) for name, model in models.items()}
        yield from time_rows(f"{frames} frames, {8 * side}x{8 * side}", works, setting, parity, absent)


def counts(setting: Setting) -> Iterator[Row]:
    """Bytes alive at the peak; on a CPU in float32, and as an accelerator would have them in bfloat16."""
    frames, side = PUBLISHED
    size = f"{frames} frames, {8 * side}x{8 * side}, guided"
    # its import makes tensors, which must not be fake ones
    with suppress(ImportError):
        importlib.import_module("diffusers.models.transformers.pixart_transformer_2d")
    with FakeTensorMode(), torch.inference_mode():
        models, absent = build(setting, "cpu")
        step = inputs(frames, side, GUIDED, "cpu")
        samples = {name: [_peak(model, *step, frames)] for name, model in models.items()}
    yield Row(size, "peak GiB", samples, absent=absent)
    with torch.inference_mode():
        models, absent = build(setting, "meta", torch.bfloat16)
        step = inputs(frames, side, GUIDED, "meta", torch.bfloat16)
        samples = {name: [_peak(model, *step, frames)] for name, model in models.items()}
    yield Row(size + ", accelerator", "peak GiB", samples, absent=absent)


def _peak(model: Forward, x: Tensor, timestep: Tensor, text: Tensor, frames: int) -> float:
    return peak_live_bytes(partial(model, x, timestep, text, frames)) / GIB


def inputs(
    frames: int, side: int, clips: int, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of some clips, their timesteps, and one text a clip."""
    x = torch.randn(clips * frames, 4, side, side, device=device, dtype=dtype)
    text = torch.randn(clips, TEXT_TOKENS, TEXT_WIDTH, device=device, dtype=dtype)
    return x, torch.full((len(x),), 500.0, device=device), text


def build(
    setting: Setting, device: str, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Forward], dict[str, str]]:
    """Forwards of models with the same random weights, and the peers that are absent."""
    network = ours.network("pixart", "diffusion_model", _config("pixart", "diffusion_model"), dtype, device)
    modules = ours.network(
        "easyanimate", "motion_module", _config("easyanimate", "motion_module"), dtype, device
    )
    for part in (network, modules):
        ours.draw(part, 0.02)
    base, motion = dict(network.state_dict()), dict(modules.state_dict())
    modules.put_into(network)  # type: ignore[operator]
    made, absent = peers.build_present({"diffusers": _diffusers}, setting, base, motion, device, dtype)

    def forward(x: Tensor, timestep: Tensor, text: Tensor, frames: int) -> Tensor:
        return network(x, timestep, text, num_video_frames=frames)

    return {OURS: forward, **made}, absent


def _config(family: str, kind: str) -> Any:
    return ours.config(family, kind, num_layers=LAYERS)


class GridMotion(nn.Module):
    """EasyAnimate v1's motion module of diffusers' parts."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.attention import BasicTransformerBlock

        self.norm = nn.GroupNorm(GROUPS, WIDTH, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        told: dict[str, Any] = {"activation_fn": "geglu", "double_self_attention": True}
        self.block = BasicTransformerBlock(WIDTH, MOTION_HEADS, WIDTH // MOTION_HEADS, **told)

    def forward(self, x_nld: Tensor, frames: int, side: int) -> Tensor:
        grid: dict[str, int] = {"f": frames, "h": side // CELL, "n": CELL, "m": CELL}
        y = self.norm(rearrange(x_nld, "n (h w) d -> n d h w", h=side))
        tokens = rearrange(y, "(b f) d (h n) (w m) -> (b h w) (f n m) d", **grid)
        tokens = self.proj_in(tokens)
        place = repeat(positions(frames, tokens), "f d -> (f k) d", k=CELL**2)
        for norm, attention in ((self.block.norm1, self.block.attn1), (self.block.norm2, self.block.attn2)):
            tokens = tokens + attention(norm(tokens) + place)
        tokens = self.proj_out(tokens + self.block.ff(self.block.norm3(tokens)))
        del grid["f"]
        clips = len(x_nld) // frames
        back = {**grid, "b": clips, "f": frames}
        return x_nld + rearrange(tokens, "(b h w) (f n m) d -> (b f) (h n w m) d", **back)


def positions(frames: int, like: Tensor) -> Tensor:
    """sin and cos by turns, (frames, width)."""
    steps = torch.arange(0, WIDTH, 2, device=like.device) * (-torch.tensor(10000.0).log().item() / WIDTH)
    angles = torch.arange(frames, device=like.device)[:, None] * steps.exp()
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


class Composed(nn.Module):
    """diffusers' PixArt with the motion modules between self-attention and cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        told: dict[str, Any] = {"num_layers": LAYERS, "num_attention_heads": HEADS, "sample_size": 64}
        self.base = peers.load_diffusers().PixArtTransformer2DModel(
            attention_head_dim=WIDTH // HEADS, cross_attention_dim=WIDTH, caption_channels=TEXT_WIDTH, **told
        )
        self.motion = nn.ModuleList(GridMotion() for _ in range(LAYERS))

    def forward(self, x_nchw: Tensor, timestep_n: Tensor, text_gld: Tensor, frames: int) -> Tensor:
        base, side = self.base, x_nchw.shape[-1] // 2
        x = base.pos_embed(x_nchw)
        told: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        time, emb = base.adaln_single(timestep_n, told, batch_size=len(x), hidden_dtype=x.dtype)
        text = base.caption_projection(text_gld).repeat_interleave(frames, dim=0)
        for block, motion in zip(base.transformer_blocks, self.motion, strict=True):
            rows = block.scale_shift_table[None] + time.reshape(len(x), 6, -1)
            shift1, scale1, gate1, shift2, scale2, gate2 = rows.chunk(6, dim=1)
            x = x + gate1 * block.attn1(block.norm1(x) * (1 + scale1) + shift1)
            x = motion(x, frames, side)
            x = x + block.attn2(x, encoder_hidden_states=text)
            x = x + gate2 * block.ff(block.norm2(x) * (1 + scale2) + shift2)
        shift, scale = (base.scale_shift_table[None] + emb[:, None]).chunk(2, dim=1)
        y = base.proj_out(base.norm_out(x) * (1 + scale) + shift)
        y = rearrange(y, "n (h w) (p q c) -> n c (h p) (w q)", h=side, p=2, q=2)
        return y[:, :4]


def _diffusers(
    base: dict[str, Tensor], motion: dict[str, Tensor], device: str, dtype: torch.dtype
) -> Forward:
    weights = {f"base.{key}": value for key, value in base.items()}
    for number in range(LAYERS):
        place = f"transformer_blocks.{number}.attn_temporal.temporal_transformer."
        own = {key.removeprefix(place): value for key, value in motion.items() if key.startswith(place)}
        weights |= {f"motion.{number}.{_name(key)}": value for key, value in own.items()}
    return peers.place(Composed, weights, dtype, device)


def _name(key: str) -> str:
    """A key of a motion module as `GridMotion` has it."""
    renames = {"transformer_blocks.0": "block", "attention_blocks.0": "attn1", "attention_blocks.1": "attn2"}
    renames |= {"ff_norm": "norm3", "norms.0": "norm1", "norms.1": "norm2"}
    for theirs, here in renames.items():
        key = key.replace(theirs, here)
    return key
