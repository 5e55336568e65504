"""The PixArt-alpha diffusion transformer: pictures, or the frames of clips, from T5 features.

PixArt-alpha (arXiv 2310.00426, sec. 2.3). Parameter names are those of diffusers. Pictures lie on the batch axis, those
of a clip behind each other, so that a motion module (EasyAnimate v1) finds its frames. The variance that it learned to
tell is for ancestral sampling of its own training and dropped, as in every pipeline.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...layers import positions
from ...layers.attention import Attention
from ...layers.embedding import NumberEmbedding, embed_patches
from ...layers.hooks import Places
from ...layers.network import Factory, Network
from ...layers.norms import modulate
from ...layers.operations import Operations, is_recorded
from .blocks import Block, Layout, norm, spans
from .config import GRID, PixArtConfig

SINUSOID = 256  # width of the sinusoids of timestep, height, width and aspect
SIZES = 3  # height and width in pixels, height / width


class PatchEmbed(nn.Module):
    """Latent cells to tokens."""

    def __init__(self, config: PixArtConfig, ops: Operations, **factory: Any):
        super().__init__()
        p = GRID.patch_hw
        self.proj = ops.Conv2d(config.in_channels, config.width, kernel_size=p, stride=p, **factory)


class Conditions(nn.Module):
    """What is told beside the prompt: the timestep and, to 1024-MS, the size of the picture."""

    def __init__(self, config: PixArtConfig, ops: Operations, **factory: Any):
        super().__init__()
        self.timestep_embedder = NumberEmbedding(SINUSOID, config.width, ops, **factory)
        if config.sized:
            third = config.width // SIZES
            self.resolution_embedder = NumberEmbedding(SINUSOID, third, ops, **factory)
            self.aspect_ratio_embedder = NumberEmbedding(SINUSOID, third, ops, **factory)

    def forward(self, timestep_n: Tensor, size_n3: Tensor | None, dtype: torch.dtype) -> Tensor:
        emb_nd = self.timestep_embedder(timestep_n, dtype)
        if size_n3 is None:
            return emb_nd
        sides = self.resolution_embedder(size_n3[:, :2].flatten(), dtype).unflatten(0, (-1, 2))
        aspect = self.aspect_ratio_embedder(size_n3[:, 2], dtype)
        return emb_nd + torch.cat([sides.flatten(1), aspect], dim=1)


class SharedNorm(nn.Module):
    """adaLN-single: one projection of the conditions, which every block adds its own table to."""

    def __init__(self, config: PixArtConfig, ops: Operations, **factory: Any):
        super().__init__()
        self.emb = Conditions(config, ops, **factory)
        self.linear = ops.Linear(config.width, 6 * config.width, **factory)


class CaptionProjection(nn.Module):
    """Text features to the width of a token."""

    def __init__(self, config: PixArtConfig, ops: Operations, **factory: Any):
        super().__init__()
        self.linear_1 = ops.Linear(config.text_dim, config.width, **factory)
        self.linear_2 = ops.Linear(config.width, config.width, **factory)

    def forward(self, text_gld: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(text_gld), approximate="tanh"))


class PixArtTransformer(Network):
    """Predicts the noise of noisy latents from text features and a timestep."""

    tells_variance = True

    def assemble(self, config: PixArtConfig, ops: Operations, attention: Attention, factory: Factory) -> None:
        self.pos_embed = PatchEmbed(config, ops, **factory)
        self.adaln_single = SharedNorm(config, ops, **factory)
        self.caption_projection = CaptionProjection(config, ops, **factory)
        self.transformer_blocks = nn.ModuleList(
            Block(config, ops, attention, **factory) for _ in range(config.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.empty(2, config.width, **factory))
        self.proj_out = ops.Linear(config.width, 2 * GRID.channels * GRID.patch_hw**2, **factory)
        self._tables = positions.TableCache()
        self.places = Places(config.width)
        self.in_channels = config.in_channels

    def forward(
        self,
        x_nchw: Tensor,
        timestep_n: Tensor,
        context_gld: Tensor,
        transformer_options: Any = None,
        size_n3: Tensor | None = None,
        num_video_frames: int = 1,
        with_variance: bool = False,
    ) -> Tensor:
        """Epsilon of (n, 4, h, w) latents at timesteps 0 to 999.

        `context_gld` are T5 features without padding, one text for every n / g pictures. `size_n3` is what 1024-MS is
        told: height and width in pixels, and height / width. `num_video_frames` are those of a clip, for a motion
        module. `with_variance`: (n, 8, h, w), behind epsilon what training asks for of its variance (sec. 2.3; arXiv
        2102.09672, sec. 3.1). Raises ValueError for sizes that do not fill patches.
        """
        layout = Layout(num_video_frames, *self._token_grid(x_nchw))
        emb_nd = self.adaln_single.emb(timestep_n, size_n3, x_nchw.dtype)
        time_n6d = self.adaln_single.linear(F.silu(emb_nd)).unflatten(1, (6, -1))
        text_gld = self.caption_projection(context_gld)
        x_nld = self._embed(x_nchw, layout)
        for block in self.transformer_blocks:
            x_nld = block(x_nld, time_n6d, text_gld, layout, transformer_options)
        both_nchw = self._unpatch(self._head(x_nld, emb_nd), layout)
        return both_nchw if with_variance else both_nchw[:, : self.in_channels]

    def _token_grid(self, x_nchw: Tensor) -> tuple[int, int]:
        """Tokens along height and width."""
        channels, h, w = x_nchw.shape[1:]
        p = GRID.patch_hw
        if channels != self.in_channels:
            raise ValueError(f"PixArt takes {self.in_channels} latent channels: got {channels}.")
        # refuses other sizes, with the nearest
        GRID.latent_size(w * GRID.stride_hw, h * GRID.stride_hw)
        return h // p, w // p

    def _embed(self, x_nchw: Tensor, layout: Layout) -> Tensor:
        p = GRID.patch_hw
        if is_recorded():
            # as trained, bit for bit
            tokens_nld = rearrange(self.pos_embed.proj(x_nchw), "n d h w -> n (h w) d")
            return tokens_nld + self._positions(layout, x_nchw)
        patches_nlc = rearrange(x_nchw, "n c (h p) (w q) -> n (h w) (c p q)", p=p, q=p)
        x_nld = embed_patches(self.pos_embed.proj, patches_nlc, self.ops)
        return x_nld.add_(self._positions(layout, x_nchw))

    def _positions(self, layout: Layout, like: Tensor) -> Tensor:
        key = (layout.height, layout.width, like.device, like.dtype)
        return self._tables.get(key, partial(self._build_positions, layout, like))[0]

    def _build_positions(self, layout: Layout, like: Tensor) -> tuple[Tensor]:
        """Sin-cos positions that span the same range for pictures of any size, (l, d)."""
        rows, columns = (
            np.arange(count, dtype=np.float32) / (count / self.config.span)
            for count in (layout.height, layout.width)
        )
        table_ld = positions.sincos_plane(rows, columns, self.config.width).astype(np.float32)
        return (torch.from_numpy(table_ld).to(like.device, like.dtype),)

    def _head(self, x_nld: Tensor, emb_nd: Tensor) -> Tensor:
        """The numbers of each token's cells (n, l, 32)."""
        rows_n2d = self.ops.cast(self.scale_shift_table, x_nld) + emb_nd[:, None]
        parts = [
            self.proj_out(modulate(norm(x_nld[at]), 0, rows_n2d[at], rows_n2d[at]))
            for at in spans(x_nld, 1, x_nld.shape[2])
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _unpatch(self, y_nlc: Tensor, layout: Layout) -> Tensor:
        p = GRID.patch_hw
        return rearrange(
            y_nlc, "n (h w) (p q c) -> n c (h p) (w q)", h=layout.height, w=layout.width, p=p, q=p
        )
