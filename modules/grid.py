"""How pixels fold into latents and latents into tokens: sizes, frame counts, and the letters of shapes.

Letters used for tensor names in this project: b batch, c channels, t latent frames, f pixel frames,
h w height and width, l tokens, d width of a token, n rows.
"""

import operator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LatentGrid:
    """How a family's VAE folds pixels into latent cells.

    CogVideoX (arXiv 2408.06072, sec. 2.1) folds 4 frames and 8x8 pixels into one cell and gives the
    first frame a latent of its own.
    """

    channels: int
    stride_t: int  # pixel frames per latent frame
    stride_hw: int  # pixels per latent cell, both axes
    lone_first: bool  # causal VAE: frame 0 has a latent of its own
    patch_hw: int = 1  # latent cells per token, both axes
    max_frames: int = 8193  # pixel frames; beyond it a request is taken for a mistake

    @property
    def frames_on_batch(self) -> bool:
        """Whether latents are pictures, (frames, c, h, w), and not one volume per clip, (b, c, t, h, w)."""
        return self.stride_t == 1

    @property
    def multiple_hw(self) -> int:
        """Pixels that height and width must be a multiple of."""
        return self.stride_hw * self.patch_hw

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of `num_frames` pixel frames; ValueError names the nearest legal counts."""
        lone = int(self.lone_first)
        folded, rest = divmod(num_frames - lone, self.stride_t)
        if num_frames < 1 or num_frames > self.max_frames:
            raise ValueError(f"num_frames must be 1 to {self.max_frames}: got {num_frames}.")
        if rest:
            fits = [count for count in (num_frames - rest, num_frames - rest + self.stride_t) if count > 0]
            raise ValueError(
                f"This model folds {self.stride_t} frames into one latent frame"
                f"{' after the first' if lone else ''}: got num_frames={num_frames}, "
                f"use {' or '.join(map(str, fits))}."
            )
        return folded + lone

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that `latent_frames` stand for; the inverse of `latent_frames`."""
        lone = int(self.lone_first)
        return (latent_frames - lone) * self.stride_t + lone

    def told_frames(self, latent_frames: int, told: Any, decoded: int) -> tuple[int, str]:
        """(pixel frames of a clip, what was assumed) of `latent_frames` that somebody says are `told` frames.

        The VAE decodes them to `decoded` frames, of which as many may go as its first latent frame gives beside
        the one it stands for. A number outside of that is from before latent frames were added or taken away.
        """
        fewest = self.pixel_frames(latent_frames)
        count = whole_number(told)
        if count is not None and fewest <= count <= decoded:
            return count, ""
        latents = f"{latent_frames} latent frame{'s' if latent_frames > 1 else ''}"
        if told is not None:
            fits = f"{fewest} to {decoded} frames" if decoded > fewest else _frames(fewest)
            return fewest, (
                f"The latent says num_frames={shortened(told)}, but its {latents} stand for {fits}: decoded "
                f"{fewest}. A node between changed its length."
            )
        if decoded > fewest:
            return fewest, (
                f"The latent does not say its number of frames: {latents} were taken for {_frames(fewest)}, but "
                f"could stand for up to {decoded}."
            )
        return fewest, ""

    def latent_size(self, width: int, height: int) -> tuple[int, int]:
        """Latent (width, height) of a picture in pixels; ValueError names the nearest legal sizes."""
        for name, pixels in (("width", width), ("height", height)):
            low = pixels - pixels % self.multiple_hw
            if pixels < self.multiple_hw or low != pixels:
                fits = [size for size in (low, low + self.multiple_hw) if size > 0]
                raise ValueError(
                    f"{name} must be a multiple of {self.multiple_hw} pixels: got {name}={pixels}, "
                    f"use {' or '.join(map(str, fits))}."
                )
        return width // self.stride_hw, height // self.stride_hw

    def check_cells(self, label: str, height: int, width: int) -> None:
        """ValueError for latents whose cells do not fill the tokens of the model called `label`, naming the nearest sizes."""
        for name, cells in (("height", height), ("width", width)):
            low = (cells - cells % self.patch_hw) * self.stride_hw
            if cells % self.patch_hw:
                raise ValueError(
                    f"{label} needs sizes in multiples of {self.multiple_hw} pixels: got {name} {cells * self.stride_hw}, "
                    f"use {' or '.join(map(str, filter(None, (low, low + self.multiple_hw))))}."
                )


def told_clips(total: int, told: Any) -> tuple[int, str]:
    """(frames of one clip, what was assumed) of `total` frames on the batch axis, `told` of which make a clip.

    Raises ValueError when they are no whole number of such clips.
    """
    count = whole_number(told)
    if count is None:
        says = "does not say" if told is None else f"says num_frames={shortened(told)}, not"
        note = f"The latent {says} how many frames a clip has: taken for one clip of {_frames(total)}."
        return total, note if total > 1 or told is not None else ""
    if total % count:
        raise ValueError(
            f"The latent holds {_frames(total)} but says that a clip has {count}: a node between took frames "
            "away or added some. Make it anew with Video Latent, or keep whole clips."
        )
    clips = total // count
    return count, f"The latent was taken for {clips} clips of {_frames(count)}." if clips > 1 else ""


def whole_number(told: Any) -> int | None:
    """A count of one or more, of whatever kind of integer; None for anything else."""
    try:
        count = operator.index(told)
    except (TypeError, RuntimeError):  # the latter from tensors of several numbers
        return None
    return count if count > 0 and not isinstance(told, bool) else None


def shortened(told: Any) -> str:
    """A value that came from elsewhere, short enough for a sentence."""
    return f"{told!r:.40}"


def _frames(count: int) -> str:
    return f"{count} frame{'s' if count > 1 else ''}"
