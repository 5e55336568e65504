"""Decoding in pieces: blended where a decoder sees its neighbours, retried where memory runs out.

Frames are (f, h, w, 3) in 0..1. A decoder reaches this stage as a function; nothing here knows a family.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]  # latents (n, c, h, w) -> frames (n, h, w, 3)
OnChunk = Callable[[int, int, int], None]  # first frame, frame after the last, blended with those before
MAX_HALVINGS = 3


def decode_in_chunks(
    decode: Decode,
    latents_nchw: Tensor,
    chunk: int,
    overlap: int,
    is_out_of_memory: Callable[[BaseException], bool],
    on_chunk: OnChunk | None = None,
) -> Iterator[Tensor]:
    """Frames of latents that keep frames on the batch axis, `chunk` at a time.

    Neighbouring chunks share `overlap` frames, blended by a linear ramp: with a temporal decoder the seam
    is spread over them, with a per-frame decoder the blend changes nothing. When memory runs out the chunk
    is halved, three times at most; then MemoryError names what was tried. `on_chunk` is called with
    every chunk before its frames come.
    """
    chunk, halvings, start = max(1, chunk), 0, 0
    tail: Tensor | None = None  # frames start .. start + len(tail), still to be blended
    total = latents_nchw.shape[0]
    while start < total:
        stop = min(start + chunk, total)
        try:
            frames = decode(latents_nchw[start:stop])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1 or halvings == MAX_HALVINGS:
                raise MemoryError(_no_memory_left(chunk, halvings)) from error
            chunk, halvings = max(1, chunk // 2), halvings + 1
            continue
        if on_chunk is not None:
            on_chunk(start, stop, 0 if tail is None else min(tail.shape[0], stop - start))
        ready, tail = _blend(tail, frames, _shared(overlap, stop - start) if stop < total else 0)
        start += ready.shape[0]
        yield ready


def _shared(overlap: int, length: int) -> int:
    """Frames a chunk of this length can share: at least one must be new, or decoding never ends."""
    return min(overlap, length - 1)


def _blend(tail: Tensor | None, frames: Tensor, keep: int) -> tuple[Tensor, Tensor | None]:
    """Ramp from `tail` into the first frames; (frames that are finished, the last `keep` for the next seam).

    A tail longer than a chunk that was halved meanwhile is finished where the chunk does not reach.
    """
    if tail is not None:
        shared = min(tail.shape[0], frames.shape[0])
        ramp = torch.linspace(0, 1, shared + 2, dtype=frames.dtype, device=frames.device)[1:-1]
        mixed = torch.lerp(tail[:shared], frames[:shared], ramp.view(-1, 1, 1, 1))
        frames = torch.cat([mixed, frames[shared:], tail[shared:]])
    split = frames.shape[0] - min(keep, frames.shape[0] - 1)
    return frames[:split], frames[split:] if keep else None


def _no_memory_left(chunk: int, halvings: int) -> str:
    return (
        f"Memory ran out while decoding {chunk} frames at a time, after halving the chunk {halvings} times. "
        "Close other programs, decode a smaller picture, or use VAE Decode (Tiled)."
    )


def with_fallbacks(
    streams: Sequence[Callable[[], Iterator[Tensor]]],
    is_out_of_memory: Callable[[BaseException], bool],
) -> Iterator[Tensor]:
    """The frames of the first stream that memory allows; the streams give the same frames, ever leaner.

    A later stream starts anew and skips what was already given. MemoryError when even the last one fails.
    """
    given = 0
    for attempt, start in enumerate(streams):
        try:
            for frames in drop_first(start(), given):
                given += frames.shape[0]
                yield frames
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if attempt == len(streams) - 1:
                raise MemoryError(
                    f"Memory ran out while decoding, after {given} frames, also in the leanest of "
                    f"{len(streams)} exact ways. Decode a smaller picture, or use VAE Decode (Tiled), which is "
                    "not exact."
                ) from error


def drop_first(stream: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The frames of a stream without its first `count`."""
    for frames in stream:
        skipped = min(count, frames.shape[0])
        count -= skipped
        if skipped < frames.shape[0]:
            yield frames[skipped:]


def check_finite(stream: Iterator[Tensor], stage: str) -> Iterator[Tensor]:
    """The same frames; ValueError naming the stage (with its dtype) and the frame at the first NaN or infinity."""
    seen = 0
    for frames in stream:
        finite = frames.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            frame = seen + int((~finite).nonzero()[0])
            raise ValueError(
                f"{stage} gave a NaN or infinity in frame {frame}, from latents without any. In float16 numbers "
                "can outgrow their range: start ComfyUI with --fp32-vae or --bf16-vae. In another dtype the VAE's "
                "file is damaged: get it again."
            )
        seen += frames.shape[0]
        yield frames
