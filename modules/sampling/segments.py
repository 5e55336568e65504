"""A video of any length in segments: where each begins, how two are joined, and what holds their colours.

CogVideoX-Fun (aigc-apps/VideoX-Fun, predict_i2v, its long mode): a segment starts from the last frames of the one
before, and those are blended from the old to the new.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SegmentPlan:
    """Segments of `frames` frames, of which neighbours share `overlap`; `loop`: so do the last one and the first."""

    count: int
    frames: int
    overlap: int
    loop: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.overlap <= self.frames // 2:
            raise ValueError(
                f"overlap must be 1 to {max(self.frames // 2, 1)} for segments of {self.frames} frames: got {self.overlap}."
            )

    @property
    def total(self) -> int:
        """Frames of the whole video. The last ones of a loop are the first again."""
        shared = self.overlap * (self.count if self.loop else self.count - 1)
        return self.frames * self.count - shared


def cross_fade(old_fhwc: Tensor, new_fhwc: Tensor) -> Tensor:
    """Frames that two segments share: the first is the old one's, and each further one is more of the new."""
    share = torch.arange(len(old_fhwc), dtype=old_fhwc.dtype, device=old_fhwc.device) / len(old_fhwc)
    return old_fhwc.lerp(new_fhwc.to(old_fhwc), share.view(-1, 1, 1, 1))


class Joiner:
    """Joins the frames of segments as they come. Holds back as many frames as two segments share."""

    def __init__(self, overlap: int):
        self.overlap = overlap
        # the last frames of all that came so far (overlap, h, w, c)
        self.tail: Tensor | None = None

    def join(self, frames_fhwc: Iterable[Tensor]) -> Iterator[Tensor]:
        """The frames of the next segment, in pieces, blended with those that were held back."""
        old, self.tail = self.tail, None
        for piece in self._blended(old, frames_fhwc):
            held = piece if self.tail is None else torch.cat([self.tail, piece])
            ready = max(0, len(held) - self.overlap)
            # a copy, so that the piece can go
            self.tail = held[ready:].clone()
            if ready:
                yield held[:ready]

    def _blended(self, old: Tensor | None, frames_fhwc: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pieces of a segment, whose first frames are blended with `old`."""
        source = iter(frames_fhwc)
        if old is not None:
            head = next(source)
            while len(head) < len(old):
                head = torch.cat([head, next(source)])
            yield cross_fade(old, head[: len(old)])
            yield head[len(old) :]
        yield from source


def skip(frames_fhwc: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The frames without the first so many."""
    for piece in frames_fhwc:
        kept = piece[count:]
        count = max(0, count - len(piece))
        if len(kept):
            yield kept


@dataclass(frozen=True)
class Colours:
    """Mean and spread of each channel of a clip's latents."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> "Colours":
        """Those of (b, c, t, h, w) or (f, c, h, w)."""
        axes = tuple(axis for axis in range(latents.ndim) if axis != 1)
        spread, mean = torch.std_mean(latents.double(), axes, keepdim=True)
        return cls(mean, spread)

    def hold(self, latents: Tensor, strength: float) -> Tensor:
        """Latents brought to these colours, by `strength` from 0, as they are, to 1."""
        own = Colours.of(latents)
        gain = (self.spread / own.spread.clamp_min(1e-6)) ** strength
        mean = own.mean.lerp(self.mean, strength)
        return ((latents.double() - own.mean) * gain + mean).to(latents)
