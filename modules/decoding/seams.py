"""How visible the seams of a clip are that was decoded in chunks: measured on the frames as they pass.

A seam that the eye catches is a jump between two frames that is larger than the jumps around it. Frames are
(f, h, w, 3) in 0..1; frame numbers count from 0.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

WHITE = 255  # jumps are measured in steps of an 8-bit picture


@dataclass(frozen=True)
class SeamReport:
    """Jumps at the borders of chunks beside those inside: mean absolute differences of neighbouring frames."""

    chunks: tuple[int, ...]  # their lengths in frames
    blended: int  # most frames that two chunks share
    at_border: float | None  # the largest jump, 0..1; None where there is no border
    border_frame: int | None  # the later one of its two frames
    inside: float | None  # the median jump; None where every pair of frames lies at a border

    @property
    def ratio(self) -> float | None:
        """Largest jump at a border over the median inside; None where either is missing or nothing moves."""
        if self.at_border is None or not self.inside:
            return None
        return self.at_border / self.inside

    def text(self) -> str:
        """One line in plain words."""
        if self.at_border is None or self.border_frame is None:
            return "Decoded in one piece: there are no seams."
        frame = self.border_frame
        border = f"largest jump at a border {_steps(self.at_border)} (frames {frame - 1}-{frame})"
        return f"{self._chunks()}: {border}, {self._beside()}"

    def _chunks(self) -> str:
        length = max(self.chunks)
        most = "" if min(self.chunks) == length else "up to "
        blended = f"{self.blended} blended" if self.blended else "not blended"
        return f"{len(self.chunks)} chunks of {most}{length} {'frames' if length > 1 else 'frame'}, {blended}"

    def _beside(self) -> str:
        if self.inside is None:
            return "no frames inside a chunk to compare with"
        if self.ratio is None:
            return "nothing moves inside"
        return f"median inside {_steps(self.inside)}, ratio {self.ratio:.1f}"


def _steps(jump: float) -> str:
    return f"{jump * WHITE:.1f} / {WHITE}"


class SeamMeter:
    """Watches frames go by and keeps only the last one and numbers.

    Give `add_chunk` to `decode_in_chunks` and its frames to `watch`, clip after clip; `report` at the end.
    """

    def __init__(self) -> None:
        self._chunks: list[int] = []
        self._blended = 0
        self._border = range(0)  # later frames of the pairs at the last border
        self._clip_start = self._seen = 0
        self._at_border: list[tuple[float, int]] = []
        self._inside: list[float] = []

    def add_chunk(self, start: int, stop: int, shared: int) -> None:
        """Frames start .. stop of the clip were decoded; the first `shared` are blended with those before."""
        self._chunks.append(stop - start)
        self._blended = max(self._blended, shared)
        if start:
            first = self._clip_start + start
            self._border = range(first, first + shared + 1)

    def watch(self, stream: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same frames of one clip."""
        self._clip_start, self._border = self._seen, range(0)
        last: Tensor | None = None
        for frames in stream:
            for frame in frames:
                if last is not None:
                    self._count(float((frame.float() - last.float()).abs().mean()))
                last, self._seen = frame, self._seen + 1
            last = frames[-1].clone() if len(frames) else last  # a view would keep all the others
            yield frames

    def _count(self, jump: float) -> None:
        if self._seen in self._border:
            self._at_border.append((jump, self._seen))
        else:
            self._inside.append(jump)

    def report(self) -> SeamReport:
        """What was seen so far."""
        jump, frame = max(self._at_border, default=(None, None))
        inside = statistics.median(self._inside) if self._inside else None
        return SeamReport(tuple(self._chunks), self._blended, jump, frame, inside)
