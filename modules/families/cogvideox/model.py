"""The CogVideoX diffusion transformer: 2B, 5B, 5B-I2V, 1.5-5B, 1.5-5B-I2V, and CogVideoX-Fun's InP and Control.

CogVideoX (arXiv 2408.06072, sec. 2.2). Text and image tokens are one sequence, text first, in one tensor
from the first block to the last. Parameter names are those of the published checkpoints (diffusers naming).
Tensors are changed in place wherever no graph is being recorded.
"""

from collections.abc import Sequence
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
from ...layers.operations import Operations
from .blocks import NORM_EPS, Block, ExpertNorm
from .config import CogVideoXConfig
from .modulation import Modulation, ModulationTable

SINCOS_SCALE = 1.875  # cells of the latent plane per unit of the sin-cos positions
OFS = 2.0  # the only value 1.5-I2V was trained with


class PatchEmbed(nn.Module):
    """Latent cells and text features to tokens. The learned positions of 5B-I2V rest here."""

    def __init__(self, config: CogVideoXConfig, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        p, width = config.patch_size, config.width
        self.is_linear = config.patch_size_t > 1
        if not self.is_linear:
            self.proj = ops.Conv2d(config.in_channels, width, kernel_size=p, stride=p, **factory)
        else:
            self.proj = ops.Linear(config.in_channels * p * p * config.patch_size_t, width, **factory)
        self.text_proj = ops.Linear(config.text_dim, width, **factory)
        if config.learned_positions:
            self.pos_embedding = nn.Parameter(torch.empty(1, config.learned_positions, width, **factory))

    def image(self, patches_bln: Tensor) -> Tensor:
        """Tokens of patches whose cells are in the order c, t, h, w; the convolution is a linear map too."""
        if self.is_linear:
            return self.proj(patches_bln)
        return embed_patches(self.proj, patches_bln, self.ops)


class CogVideoXTransformer(Network):
    """Predicts v from noisy latents, text features and a timestep."""

    def assemble(
        self, config: CogVideoXConfig, ops: Operations, attention: Attention, factory: Factory
    ) -> None:
        self.patch_embed = PatchEmbed(config, ops, **factory)
        self.time_embedding = NumberEmbedding(config.width, config.time_embed_dim, ops, **factory)
        if config.ofs_dim:
            self.ofs_embedding = NumberEmbedding(config.ofs_dim, config.time_embed_dim, ops, **factory)
        self.transformer_blocks = nn.ModuleList(
            Block(config, ops, attention, **factory) for _ in range(config.num_layers)
        )
        self.norm_final = ops.LayerNorm(config.width, eps=NORM_EPS, **factory)
        self.norm_out = ExpertNorm(config.width, config.time_embed_dim, 2, ops, **factory)
        patch = config.patch_size**2 * config.patch_size_t
        self.proj_out = ops.Linear(config.width, patch * config.out_channels, **factory)
        self._tables = positions.TableCache()
        self.places = Places(config.width)
        self.in_channels = config.in_channels

    def forward(
        self,
        x_bcthw: Tensor,
        timestep_b: Tensor,
        context_bld: Tensor,
        transformer_options: Any = None,
        ofs_b: Tensor | None = None,
        modulation: ModulationTable | None = None,
    ) -> Tensor:
        """v of (b, in_channels, t, h, w) latents at timesteps 0 to 999; (b, out_channels, t, h, w).

        `context_bld` are T5 features, without mask. With `modulation`, a table of `tabulate`, the layers
        it stands for are not read. Raises ValueError for sizes that do not fill patches, for timesteps
        that a table lacks and, with learned positions, for pictures of another size than the model's own.
        """
        lone = x_bcthw.shape[2] == 1 and self.config.frame_rule.lone_frame
        if lone:
            # Fun V1.5 (aigc-apps/VideoX-Fun, cogvideox_transformer3d): a silent frame fills the patch.
            x_bcthw = F.pad(x_bcthw, (0, 0, 0, 0, 0, self.config.patch_size_t - 1))
        v_bcthw = self._velocity(x_bcthw, timestep_b, context_bld, transformer_options, ofs_b, modulation)
        return v_bcthw[:, :, :1] if lone else v_bcthw

    def _velocity(
        self,
        x_bcthw: Tensor,
        timestep_b: Tensor,
        context_bld: Tensor,
        transformer_options: Any,
        ofs_b: Tensor | None,
        modulation: ModulationTable | None,
    ) -> Tensor:
        grid = self._token_grid(x_bcthw)
        text_tokens = context_bld.shape[1]
        if modulation is None:
            condition_bd = self._condition(timestep_b, ofs_b, x_bcthw.dtype)
            block_rows = (block.rows(condition_bd) for block in self._blocks())
            out_rows = partial(self.norm_out.rows, condition_bd)
        else:
            rows = modulation.at(timestep_b, ofs_b, x_bcthw)
            block_rows, out_rows = iter(rows), lambda: rows.out_bcd
        table = self._rotary(grid, x_bcthw.device) if self.config.rotary else None
        x_bld = self._embed(x_bcthw, context_bld, grid)
        for block, rows_of_block in zip(self._blocks(), block_rows, strict=True):
            x_bld = block(x_bld, text_tokens, rows_of_block, table, transformer_options)
        return self._unpatch(self._head(x_bld[:, text_tokens:], out_rows()), grid)

    @torch.no_grad()
    def tabulate(
        self, timesteps: Sequence[float], ofs: float = OFS, dtype: torch.dtype | None = None
    ) -> ModulationTable:
        """Everything the model computes from timesteps alone, exactly as `forward` computes it.

        `dtype` is the one that `forward` will compute in; the model's own unless given.
        """
        given_n = torch.tensor(timesteps, dtype=torch.float32)
        timestep_n = given_n.to(self.norm_out.norm.weight.device)
        condition_nd = self._condition(timestep_n, torch.full_like(timestep_n, ofs), dtype or self.dtype)
        blocks = [torch.stack(block.rows(condition_nd), dim=1) for block in self._blocks()]
        rows = Modulation(torch.stack(blocks, dim=1), self.norm_out.rows(condition_nd))
        return ModulationTable(tuple(given_n.tolist()), ofs, rows)

    def _blocks(self) -> list[Block]:
        return list(self.transformer_blocks)  # type: ignore[arg-type]

    def _token_grid(self, x_bcthw: Tensor) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        p, p_t = self.config.patch_size, self.config.patch_size_t
        channels, t, h, w = x_bcthw.shape[1:]
        if channels != self.config.in_channels:
            raise ValueError(
                f"CogVideoX {self.config.variant} takes {self.config.in_channels} latent channels: got {channels}."
            )
        if h % p or w % p:
            raise ValueError(
                f"CogVideoX needs latents whose height and width are multiples of {p}: got {h}x{w}. "
                f"Use pictures whose sides are multiples of {8 * p} pixels."
            )
        if t % p_t:
            raise ValueError(
                f"CogVideoX {self.config.variant} needs a multiple of {p_t} latent frames: got {t}, "
                f"use {t - t % p_t or p_t} or {t + p_t - t % p_t}."
            )
        return t // p_t, h // p, w // p

    def _condition(self, timestep_b: Tensor, ofs_b: Tensor | None, dtype: torch.dtype) -> Tensor:
        condition_bd = self.time_embedding(timestep_b, dtype)
        if self.config.ofs_dim:
            if ofs_b is None:
                ofs_b = torch.full_like(timestep_b, OFS, dtype=torch.float32)
            condition_bd = condition_bd + self.ofs_embedding(ofs_b, dtype)
        return F.silu(condition_bd)

    def _embed(self, x_bcthw: Tensor, context_bld: Tensor, grid: tuple[int, int, int]) -> Tensor:
        p, p_t = self.config.patch_size, self.config.patch_size_t
        patches_bln = rearrange(x_bcthw, "b c (t r) (h p) (w q) -> b (t h w) (c r p q)", r=p_t, p=p, q=p)
        image_bld = self.patch_embed.image(patches_bln)
        text_bld = self.patch_embed.text_proj(context_bld)
        if self.config.learned_positions:
            text_ld, image_ld = self._learned(grid, text_bld)
            return torch.cat([text_bld + text_ld, image_bld + image_ld], dim=1)
        if not self.config.rotary:
            image_bld = image_bld + self._sincos(grid, image_bld)
        return torch.cat([text_bld, image_bld], dim=1)

    def _head(self, x_bld: Tensor, rows_bcd: Tensor) -> Tensor:
        return self.proj_out(self.norm_out(self.norm_final(x_bld), 0, rows_bcd, rows_bcd))

    def _unpatch(self, y_bln: Tensor, grid: tuple[int, int, int]) -> Tensor:
        p, (t, h, w) = self.config.patch_size, grid
        return rearrange(
            y_bln,
            "b (t h w) (c r p q) -> b c (t r) (h p) (w q)",
            t=t,
            h=h,
            w=w,
            p=p,
            q=p,
            r=self.config.patch_size_t,
        )

    def _rotary(self, grid: tuple[int, int, int], device: torch.device) -> Tensor:
        """Rotations of the image tokens; 1.5 counts cells, 1.0 fits the picture into its base grid."""
        return self._tables.get(("rotary", grid, device), partial(self._build_rotary, grid, device))[0]

    def _build_rotary(self, grid: tuple[int, int, int], device: torch.device) -> tuple[Tensor]:
        t, h, w = grid
        rows, columns = np.arange(h), np.arange(w)
        if self.config.patch_size_t == 1:
            p = self.config.patch_size
            base = (self.config.sample_height // p, self.config.sample_width // p)
            rows, columns = positions.crop_coordinates((h, w), base)
        angles = positions.rotary_angles(np.arange(t), rows, columns, self.config.head_dim)
        return (positions.rotary_table(angles, device),)

    def _sincos(self, grid: tuple[int, int, int], like: Tensor) -> Tensor:
        """Fixed positions of the image tokens of 2B: a quarter of the channels time, the rest the plane."""
        if self.config.resizes_positions:
            return self._resized_sincos(grid, like)
        key = ("sincos", grid, like.device, like.dtype)
        time_td, plane_nd = self._tables.get(key, partial(self._build_sincos, grid, like))
        t, n = len(time_td), len(plane_nd)
        table = [time_td[:, None].expand(-1, n, -1), plane_nd[None].expand(t, -1, -1)]
        return torch.cat(table, dim=-1).flatten(0, 1)

    def _build_sincos(self, grid: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        t, h, w = grid
        channels = self.config.width // 4
        time_td = positions.sincos_axis(np.arange(t), channels)
        rows, columns = np.arange(h) / SINCOS_SCALE, np.arange(w) / SINCOS_SCALE
        plane_nd = positions.sincos_plane(rows, columns, self.config.width - channels)
        time_td, plane_nd = (
            torch.from_numpy(table.astype(np.float32)).to(like.device, like.dtype)
            for table in (time_td, plane_nd)
        )
        return time_td, plane_nd

    def _resized_sincos(self, grid: tuple[int, int, int], like: Tensor) -> Tensor:
        """The model's own table of 2B, its planes resized to the clip's.

        CogVideoX-Fun (aigc-apps/VideoX-Fun, report of V1.0): what it calls a resized 3D embedding. Another function
        than positions made anew for the size.
        """
        own = self.config.own_tokens
        if grid[0] > own[0]:
            raise ValueError(
                f"CogVideoX {self.config.variant} has positions for {own[0]} latent frames: got {grid[0]}, use at most "
                f"{self.config.sample_frames} frames."
            )
        key = ("resized", grid[1:], like.device, like.dtype)
        table_tnd = self._tables.get(key, partial(self._build_resized_sincos, own, grid, like))[0]
        return table_tnd[: grid[0]].flatten(0, 1)

    def _build_resized_sincos(
        self, own: tuple[int, int, int], grid: tuple[int, int, int], like: Tensor
    ) -> tuple[Tensor]:
        time_td, plane_nd = self._build_sincos(own, like.new_empty(0, dtype=torch.float32))
        table = [time_td[:, None].expand(-1, len(plane_nd), -1), plane_nd[None].expand(len(time_td), -1, -1)]
        table_1dthw = rearrange(torch.cat(table, dim=-1), "t (h w) d -> 1 d t h w", h=own[1])
        resized_1dthw = F.interpolate(table_1dthw, size=(own[0], *grid[1:]), mode="trilinear")
        return (rearrange(resized_1dthw, "1 d t h w -> t (h w) d").to(like.dtype),)

    def _learned(self, grid: tuple[int, int, int], text_bld: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the learned table for text and image tokens; only the model's own picture size has any."""
        t, h, w = grid
        p, text_rows = self.config.patch_size, self.config.max_text_tokens
        own = (self.config.sample_height // p, self.config.sample_width // p)
        most = (self.config.learned_positions - text_rows) // (own[0] * own[1])
        tokens = text_bld.shape[1]
        if (h, w) != own or t > most or tokens > text_rows:
            raise ValueError(
                f"CogVideoX {self.config.variant} has learned positions for {own[1] * 8 * p}x{own[0] * 8 * p} "
                f"pixels, at most {4 * most - 3} frames and {text_rows} text tokens: got {w * 8 * p}x{h * 8 * p}, "
                f"{4 * t - 3} frames, {tokens} text tokens."
            )
        table_ld = self.ops.cast(self.patch_embed.pos_embedding, text_bld)[0]
        return table_ld[:tokens], table_ld[text_rows : text_rows + t * h * w]
