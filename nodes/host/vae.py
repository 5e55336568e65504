"""A family's video VAE as a host VAE, streaming inside: whole clips never lie on the device.

The host's VAEDecode, VAEEncode and their tiled forms work on it, and our decoding nodes reach the
frame stream through `frame_stream`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ...modules.families.family import Part
from ...modules.grid import LatentGrid
from . import compat
from .backend import HostOperations, new_patcher
from .progress import Progress, check_interrupted, steps

WORKING_DTYPES = [torch.bfloat16, torch.float32]  # fp16 overflows in the decoder of CogVideoX


@dataclass(frozen=True)
class VAERecipe:
    """Everything needed to build a VAE, and to build it once more when the host asks."""

    part: Part
    config: Any
    grid: LatentGrid
    fill: Callable[[nn.Module, torch.dtype], None]


class VideoVAE(comfy.sd.VAE):
    """The host's VAE around a causal video VAE of ours. Pixels are (frames, h, w, 3) in 0..1."""

    def __init__(self, recipe: VAERecipe, disable_dynamic: bool = False):
        super().__init__(sd={})  # the defaults of this host version; it logs one warning of no weights
        self.recipe, grid = recipe, recipe.grid
        self.latent_channels, self.latent_dim, self.output_channels = grid.channels, 3, 3
        self._set_ratios(grid)
        numbers = recipe.part.build.numbers_per_pixel  # live at the peak of a chunk, whatever the length
        size = comfy.model_management.dtype_size
        self.memory_used_decode = lambda shape, dtype: (
            numbers * shape[-1] * shape[-2] * grid.stride_hw**2 * size(dtype)
        )
        self.memory_used_encode = lambda shape, dtype: numbers * shape[-1] * shape[-2] * size(dtype)
        self.working_dtypes = WORKING_DTYPES
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = comfy.model_management.vae_dtype(self.device, WORKING_DTYPES)
        self.output_device = comfy.model_management.intermediate_device()
        self.crop_input = False
        self._build(disable_dynamic)

    def _set_ratios(self, grid: LatentGrid) -> None:
        """Strides as the host writes them: a function of frames, and two spatial numbers."""
        stride, space = grid.stride_t, grid.stride_hw
        self.upscale_ratio = (lambda frames: max(0, grid.pixel_frames(frames)), space, space)
        self.upscale_index_formula = (stride, space, space)
        self.downscale_ratio = (lambda frames: max(0, (frames + stride - 1) // stride), space, space)
        self.downscale_index_formula = (stride, space, space)

    def _build(self, disable_dynamic: bool) -> None:
        ops = HostOperations(comfy.ops.manual_cast)
        meta = torch.device("meta")
        model = self.recipe.part.build(self.recipe.config, ops=ops, dtype=self.vae_dtype, device=meta).eval()
        self.first_stage_model = model
        comfy.model_management.archive_model_dtypes(model)
        offload_device = comfy.model_management.vae_offload_device()
        self.patcher = new_patcher(model, self.device, offload_device, disable_dynamic)
        self.recipe.fill(model, self.vae_dtype)
        model.device = self.patcher.offload_device
        self.patcher.cached_patcher_init = (_load_vae_patcher, (self.recipe,))

    def reserve(self, bytes_needed: float) -> None:
        """Load the weights and free that much memory on the device."""
        comfy.model_management.load_models_gpu([self.patcher], memory_required=int(bytes_needed))

    def frame_stream(self, latents_bcthw: Tensor, **options: Any) -> Iterator[Tensor]:
        """Decode one clip: yields (f, h, w, 3) in 0..1 on the output device, chunk by chunk.

        `options` go to the family's `decode_stream`.
        """
        self.reserve(self.memory_used_decode(latents_bcthw.shape, self.vae_dtype))
        latents = latents_bcthw.to(self.device, self.vae_dtype)
        for pixels_bcfhw in self.first_stage_model.decode_stream(latents, **options):
            check_interrupted()
            pixels = self.process_output(pixels_bcfhw.to(self.output_device, compat.intermediate_dtype()))
            yield pixels[0].movedim(0, -1)

    def decoded_frames(self, latent_frames: int) -> int:
        """Pixel frames that this many latent frames decode to."""
        return self.first_stage_model.decoded_frames(latent_frames)

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """(b, c, t, h, w) latents to (b, f, h, w, 3) pixels, the host's VAEDecode."""
        return torch.stack([torch.cat(list(self.frame_stream(clip[None]))) for clip in samples_in])

    def decode_tiled_3d(
        self,
        samples: Tensor,
        tile_t: int = 999,
        tile_x: int = 32,
        tile_y: int = 32,
        overlap: tuple[int, int, int] = (1, 8, 8),
    ) -> Tensor:
        """What the host's VAEDecodeTiled decodes with; every tile has the frames that the host counts on.

        A tile of an even number of latents decodes to three frames more, all from its first latent: those
        would shift the tile, or not fit.
        """

        def decode(tile_bcthw: Tensor) -> Tensor:
            check_interrupted()
            wanted = self.upscale_ratio[0](tile_bcthw.shape[2])
            tile = self.first_stage_model.decode(tile_bcthw.to(self.device, self.vae_dtype))
            return tile[:, :, -wanted:].to(compat.intermediate_dtype())

        pixels = comfy.utils.tiled_scale_multidim(
            samples,
            decode,
            tile=(tile_t, tile_x, tile_y),
            overlap=overlap,
            upscale_amount=self.upscale_ratio,
            out_channels=self.output_channels,
            index_formulas=self.upscale_index_formula,
            output_device=self.output_device,
        )
        return self.process_output(pixels)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """(f, h, w, 3) pixels of one clip to (1, c, t, h, w) latents (posterior mean), the host's VAEEncode."""
        mean, _ = self.encode_moments(pixel_samples)
        return mean

    def encode_tiled(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The host's VAEEncodeTiled, which would round counts and sizes that do not fold."""
        return super().encode_tiled(self._checked_frames(pixel_samples), *args, **kwargs)

    def _checked_frames(self, pixel_samples: Tensor) -> Tensor:
        """(f, h, w, 3) of a clip; ValueError when its count or its size does not fold."""
        frames = pixel_samples[..., :3].reshape(-1, *pixel_samples.shape[-3:-1], 3)
        self.recipe.grid.latent_frames(frames.shape[0])
        self.recipe.grid.latent_size(frames.shape[2], frames.shape[1])
        return frames

    def encode_moments(self, pixel_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (1, c, t, h, w) of the posterior of a clip (f, h, w, 3) or (1, f, h, w, 3).

        Raises ValueError when the frame count or the size does not fold, naming those that do.
        """
        frames = self._checked_frames(pixel_samples)
        self.reserve(self.memory_used_encode((1, 3, *frames.shape[:-1]), self.vae_dtype))
        bar = steps(frames.shape[0])
        pieces = (self._to_device(piece, bar) for piece in frames.split(8))  # whole clips stay off the device
        chunks = self.first_stage_model.encode_stream(pieces, frames.shape[0])
        mean, log_variance = (
            torch.cat(parts, dim=2) for parts in zip(*map(self._to_host, chunks), strict=True)
        )
        return mean, log_variance

    def _to_device(self, frames_fhwc: Tensor, bar: Progress) -> Tensor:
        """(1, c, f, h, w) in -1..1 on the VAE's device."""
        bar.advance(frames_fhwc.shape[0])
        return self.process_input(frames_fhwc.movedim(-1, 0)[None]).to(self.device, self.vae_dtype)

    def _to_host(self, moments: tuple[Tensor, Tensor]) -> list[Tensor]:
        return [moment.to(self.output_device, compat.intermediate_dtype()) for moment in moments]


def _load_vae_patcher(recipe: VAERecipe, disable_dynamic: bool = False) -> Any:
    return VideoVAE(recipe, disable_dynamic).patcher
