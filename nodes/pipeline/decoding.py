"""Latents to frames, a few at a time, by whatever VAE is connected."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ...modules.decoding.chunks import check_finite, decode_in_chunks, drop_first, with_fallbacks
from ...modules.decoding.seams import SeamMeter
from ..host import compat, progress
from ..host.guards import NUM_FRAMES
from ..host.latents import check_vae, clip_frames, samples_of
from ..host.vae import FramesVAE, VideoVAE

# Exact ways to decode with a causal VAE, leaner and slower from one to the next.
LADDER = ({}, {"cache_device": "cpu"})
# Frames blended between chunks where nobody chose.
OVERLAP = 2

Decode = Callable[[Tensor], Iterator[Tensor]]


@dataclass(frozen=True)
class Clips:
    """The clips of a LATENT and how a VAE decodes each."""

    samples: Tensor
    # of one clip; None: as many as the VAE gives
    num_frames: int | None
    # what was assumed about that, for people
    note: str
    # one piece of `split` to its frames (f, h, w, 3), a few at a time
    decode: Decode
    # (width, height) in pixels
    size: tuple[int, int]
    dtype: torch.dtype

    @property
    def total(self) -> int:
        """Frames of all clips, as far as they are known."""
        if self.samples.ndim == 4:
            return self.samples.shape[0]
        return self.samples.shape[0] * (self.num_frames or 1)

    def split(self) -> tuple[Tensor, ...]:
        """What is decoded at one go: a clip of ours, for a temporal decoder must not mix two; else all."""
        if self.num_frames is None:
            return (self.samples,)
        return self.samples.split(self.num_frames if self.samples.ndim == 4 else 1)

    def frames(self) -> Iterator[Tensor]:
        """Frames (f, h, w, 3) of every clip, checked to be finite, moving the node's progress bar.

        Raises ValueError for latents that are not finite, and for frames that are not.
        """
        if not bool(self.samples.isfinite().all()):
            raise ValueError("The latent holds a NaN or infinity: sampling went wrong before decoding.")
        stream = chain.from_iterable(map(self.decode, self.split()))
        stage = f"Decoding in {str(self.dtype).removeprefix('torch.')}"
        bar = progress.steps(self.total)
        for frames in check_finite(stream, stage):
            bar.advance(frames.shape[0])
            yield frames


def open_clips(
    vae: Any,
    latent: dict[str, Any],
    node: str,
    chunk: int = 0,
    overlap: int = OVERLAP,
    meter: SeamMeter | None = None,
) -> Clips:
    """The clips of a LATENT; ValueError where a VAE cannot decode them or their number of frames is wrong.

    A causal VAE of this pack streams exactly. VAEs with frames on the batch axis, ours or the host's, are decoded
    `chunk` frames at a time (0: what memory allows), watched by `meter`; others whole.
    """
    samples = samples_of(latent)
    check_vae(vae, samples, node)
    stride = vae.spacial_compression_decode()
    size = samples.shape[-1] * stride, samples.shape[-2] * stride
    if isinstance(vae, VideoVAE):
        count = samples.shape[2]
        num_frames, note = vae.recipe.grid.told_frames(
            count, latent.get(NUM_FRAMES), vae.decoded_frames(count)
        )
        decode: Decode = partial(_causal, vae, num_frames)
    elif samples.ndim == 4:
        num_frames, note = clip_frames(latent)
        chunk = chunk or affordable_frames(vae, samples)
        decode = partial(_chunked, vae, chunk, overlap, meter)
    else:
        num_frames, note, decode = None, "", lambda clip: iter(vae.decode(clip).unbind())
    return Clips(samples, num_frames, note, decode, size, vae.vae_dtype)


def decode(vae: Any, latent: dict[str, Any], node: str, chunk: int, overlap: int) -> tuple[Tensor, str]:
    """(all frames of a LATENT in order, what was assumed and how visible the seams are)."""
    meter = SeamMeter()
    clips = open_clips(vae, latent, node, chunk, overlap, meter)
    frames = torch.cat(list(clips.frames()))
    return frames, " ".join(filter(None, (clips.note, meter.report().text())))


def affordable_frames(vae: Any, samples: Tensor) -> int:
    """How many frames of (n, c, h, w) latents the free memory of the VAE's device decodes at once."""
    free = vae.patcher.get_free_memory(vae.device) * 0.8
    if isinstance(vae, FramesVAE):
        return vae.affordable_frames(samples.shape, free)
    return max(1, int(free / vae.memory_used_decode((1, *samples.shape[1:]), vae.vae_dtype)))


def _chunked(vae: Any, chunk: int, overlap: int, meter: SeamMeter | None, clip: Tensor) -> Iterator[Tensor]:
    """One clip in chunks, its seams measured when somebody wants to know."""
    on_chunk = None if meter is None else meter.add_chunk
    stream = decode_in_chunks(vae.decode, clip, chunk, overlap, compat.is_out_of_memory, on_chunk)
    return stream if meter is None else meter.watch(stream)


def _causal(vae: VideoVAE, num_frames: int, clip: Tensor) -> Iterator[Tensor]:
    """One clip, in the first exact way that memory allows, cut to the frames that it stands for.

    An even number of latents decodes to three frames more, all from the first latent (spec of the CogVideoX
    VAE: its chunks): those go, so that the frame that stands alone in an odd clip stands alone here too.
    """
    streams = [partial(vae.frame_stream, clip, **way) for way in LADDER]
    stream = with_fallbacks(streams, compat.is_out_of_memory)
    return drop_first(stream, vae.decoded_frames(clip.shape[2]) - num_frames)
