"""A family's VAE as a host VAE: the host's VAEDecode, VAEEncode and their tiled forms work on it.

Causal video VAEs stream inside, so that whole clips never lie on the device; our decoding nodes reach the
stream through `frame_stream`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
from .backend import Check, HostOperations, new_patcher, unchecked
from .footage import FrameSource
from .progress import Progress, check_interrupted, steps

# A VAE of the host without a network of its own, "pixel_space": every version builds it from this alone, in silence.
NOTHING = {"pixel_space_vae": torch.tensor(1.0)}
Frames = Tensor | FrameSource
WORKING_DTYPES = [torch.bfloat16, torch.float32]  # fp16 overflows in the decoder of CogVideoX


@dataclass(frozen=True)
class VAERecipe:
    """Everything needed to build a VAE, and to build it once more when the host asks."""

    part: Part
    config: Any
    grid: LatentGrid
    fill: Callable[[nn.Module, torch.dtype], None]
    check: Check = unchecked
    # what the host saves beside the weights
    notes: Mapping[str, Tensor] = field(default_factory=dict)


class FamilyVAE(comfy.sd.VAE):
    """The host's VAE around one of ours. A subclass says how its latents lie and what memory it takes."""

    def __init__(self, recipe: VAERecipe, disable_dynamic: bool = False):
        super().__init__(sd=NOTHING)  # the defaults of this host version
        self.size, self.disable_offload = None, False  # two that pixel_space has of its own
        self.recipe = recipe
        self.latent_channels, self.output_channels = recipe.grid.channels, 3
        self.working_dtypes = WORKING_DTYPES
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = comfy.model_management.vae_dtype(self.device, WORKING_DTYPES)
        self.output_device = comfy.model_management.intermediate_device()
        self.crop_input = False
        self._describe(recipe.grid)
        self._build(disable_dynamic)

    def _describe(self, grid: LatentGrid) -> None:
        """Set the host's ratios and memory estimates."""
        raise NotImplementedError

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
        self.patcher.cached_patcher_init = (_load_vae_patcher, (type(self), self.recipe))

    def throw_exception_if_invalid(self) -> None:
        """What the host asks before every use; here also whether the weights still are those that were loaded."""
        super().throw_exception_if_invalid()
        self.recipe.check()

    def get_sd(self) -> dict[str, Tensor]:
        """What the host saves, with what no shape of it tells."""
        return {**super().get_sd(), **self.recipe.notes}

    def reserve(self, bytes_needed: float) -> None:
        """Load the weights and free that much memory on the device."""
        self.throw_exception_if_invalid()
        comfy.model_management.load_models_gpu([self.patcher], memory_required=int(bytes_needed))

    def to_device(self, frames_fhwc: Tensor) -> Tensor:
        """(f, 3, h, w) in -1..1 on the VAE's device."""
        return self.process_input(frames_fhwc.movedim(-1, 1)).to(self.device, self.vae_dtype)

    def to_pixels(self, frames_fchw: Tensor) -> Tensor:
        """(f, h, w, 3) in 0..1 on the output device."""
        frames = self.process_output(frames_fchw.to(self.output_device, compat.intermediate_dtype()))
        return frames.movedim(1, -1)

    def to_host(self, moments: Iterable[Tensor]) -> list[Tensor]:
        """Latents where, and in the dtype in which, nodes hand them on."""
        return [moment.to(self.output_device, compat.intermediate_dtype()) for moment in moments]

    def checked_frames(self, pixel_samples: Frames) -> Frames:
        """(f, h, w, 3) of a clip; ValueError when its count or its size does not fold."""
        frames = pixel_samples
        if isinstance(frames, Tensor):
            frames = frames[..., :3].reshape(-1, *frames.shape[-3:-1], 3)
        self.recipe.grid.latent_frames(frames.shape[0])
        self.recipe.grid.latent_size(frames.shape[2], frames.shape[1])
        return frames

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Pixels of one clip to latents (posterior mean), the host's VAEEncode."""
        mean, _ = self.encode_moments(pixel_samples)
        return mean

    def encode_moments(self, pixel_samples: Frames) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior of a clip (f, h, w, 3) or (1, f, h, w, 3), or of frames to be read.

        Raises ValueError when the frame count or the size does not fold, naming those that do.
        """
        axis = 0 if self.recipe.grid.frames_on_batch else 2
        mean, log_variance = (
            torch.cat(parts, dim=axis)
            for parts in zip(*self.moment_stream(self.checked_frames(pixel_samples)), strict=True)
        )
        return mean, log_variance

    def moment_stream(self, frames: Frames) -> Iterator[list[Tensor]]:
        """Mean and log-variance of `checked_frames`, some latent frames at a time."""
        raise NotImplementedError

    def encode_tiled(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The host's VAEEncodeTiled, which would round counts and sizes that do not fold."""
        return super().encode_tiled(self.checked_frames(pixel_samples), *args, **kwargs)


class FramesVAE(FamilyVAE):
    """A VAE of single frames whose decoder may see a whole clip. Latents are (f, c, h, w)."""

    def _describe(self, grid: LatentGrid) -> None:
        self.latent_dim = 2
        self.upscale_ratio = self.downscale_ratio = grid.stride_hw
        build, size = self.recipe.part.build, comfy.model_management.dtype_size
        self.memory_used_decode = lambda shape, dtype: self._decode_bytes(
            (1, *shape[1:])
        )  # as the host counts
        self.memory_used_encode = lambda shape, dtype: (
            build.encode_numbers_per_pixel * shape[-1] * shape[-2] * size(dtype)
        )

    def _decode_bytes(self, shape: tuple[int, ...]) -> float:
        """Memory that latents (f, c, h, w) take while they are decoded: so much a frame, so much once."""
        build, size = self.recipe.part.build, comfy.model_management.dtype_size(self.vae_dtype)
        numbers = shape[0] * build.decode_numbers_per_pixel + build.decode_numbers_once_per_pixel
        return numbers * shape[-1] * shape[-2] * self.recipe.grid.stride_hw**2 * size

    def affordable_frames(self, shape: tuple[int, ...], free: float) -> int:
        """How many frames of latents (f, c, h, w) so many bytes decode at once; one at least."""
        one, two = (self._decode_bytes((count, *shape[1:])) for count in (1, 2))
        return max(1, 1 + int((free - one) / (two - one)))

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        """(f, c, h, w) latents of one clip to (f, h, w, 3) pixels, all at once: every frame sees the others.

        The host would cut the clip where memory is short, without a word; VAEDecodeChunked does it blended.
        """
        self.reserve(self._decode_bytes(samples_in.shape))
        return self.to_pixels(self.first_stage_model.decode(samples_in.to(self.device, self.vae_dtype)))

    def moment_stream(self, frames: Frames) -> Iterator[list[Tensor]]:
        """Each (1, c, h, w), frame by frame."""
        self.reserve(self.memory_used_encode((1, 3, *frames.shape[1:3]), self.vae_dtype))
        bar = steps(frames.shape[0])
        for frame_1hwc in frames.split(1):
            yield self.to_host(self.first_stage_model.encode_moments(self.to_device(frame_1hwc)))
            bar.advance()


class VideoVAE(FamilyVAE):
    """A causal video VAE, streaming inside. Pixels are (frames, h, w, 3) in 0..1."""

    def _describe(self, grid: LatentGrid) -> None:
        """Strides as the host writes them: a function of frames, and two spatial numbers."""
        self.latent_dim = 3
        stride, space = grid.stride_t, grid.stride_hw
        self.upscale_ratio = (lambda frames: max(0, grid.pixel_frames(frames)), space, space)
        self.upscale_index_formula = (stride, space, space)
        self.downscale_ratio = (lambda frames: max(0, (frames + stride - 1) // stride), space, space)
        self.downscale_index_formula = (stride, space, space)
        numbers = self.recipe.part.build.numbers_per_pixel  # live at the peak of a chunk, whatever the length
        size = comfy.model_management.dtype_size
        self.memory_used_decode = lambda shape, dtype: (
            numbers * shape[-1] * shape[-2] * grid.stride_hw**2 * size(dtype)
        )
        self.memory_used_encode = lambda shape, dtype: numbers * shape[-1] * shape[-2] * size(dtype)

    def frame_stream(self, latents_bcthw: Tensor, **options: Any) -> Iterator[Tensor]:
        """Decode one clip: yields (f, h, w, 3) in 0..1 on the output device, chunk by chunk.

        `options` go to the family's `decode_stream`.
        """
        self.reserve(self.memory_used_decode(latents_bcthw.shape, self.vae_dtype))
        latents = latents_bcthw.to(self.device, self.vae_dtype)
        for pixels_bcfhw in self.first_stage_model.decode_stream(latents, **options):
            check_interrupted()
            yield self.to_pixels(pixels_bcfhw[0].movedim(1, 0))

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

    def moment_stream(self, frames: Frames) -> Iterator[list[Tensor]]:
        """Each (1, c, t, h, w), chunk by chunk."""
        self.reserve(self.memory_used_encode((1, 3, *frames.shape[:-1]), self.vae_dtype))
        bar = steps(frames.shape[0])
        pieces = (self._watched(piece, bar) for piece in frames.split(8))  # whole clips stay off the device
        yield from map(self.to_host, self.first_stage_model.encode_stream(pieces, frames.shape[0]))

    def _watched(self, frames_fhwc: Tensor, bar: Progress) -> Tensor:
        """(1, c, f, h, w) in -1..1 on the VAE's device, with a move of the progress bar."""
        bar.advance(frames_fhwc.shape[0])
        return self.to_device(frames_fhwc).movedim(1, 0)[None]


def _load_vae_patcher(kind: type[FamilyVAE], recipe: VAERecipe, disable_dynamic: bool = False) -> Any:
    return kind(recipe, disable_dynamic).patcher
