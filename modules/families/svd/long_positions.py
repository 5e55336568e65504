"""Where the tokens of a long clip stand: ExVideo's learned table, and its convolution over the clip.

ExVideo (arXiv 2406.14130), sec. 3.2.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...layers import positions, slabs
from ...layers.operations import Operations, is_recorded, is_taken_over

MAX_FRAMES = 128
TRAINED_FRAMES, BOUNCED_FRAMES = 25, 20  # of svd_xt; how many of them a longer clip walks back and forth


def bounced_ids(count: int) -> list[int]:
    """Frame indices that never leave those of svd_xt: 0 to 24, 23 down to 4, 5 to 24, 23 down to 4, ..."""
    last = TRAINED_FRAMES - 1
    ids = []
    for frame in range(count):
        beyond = (frame - TRAINED_FRAMES) % (2 * BOUNCED_FRAMES)
        if frame < TRAINED_FRAMES:
            ids.append(frame)
        elif beyond < BOUNCED_FRAMES:
            ids.append(last - 1 - beyond)
        else:
            ids.append(last + 1 - 2 * BOUNCED_FRAMES + beyond)
    return ids


def initial_rows(width: int, count: int = MAX_FRAMES) -> Tensor:
    """The table before any training: SVD's sinusoids of the bounced indices, float32 (count, width)."""
    return positions.sinusoid(torch.tensor(bounced_ids(count)), width)


class ExVideoPosition(nn.Module):
    """Where a token stands in a long clip: a row per frame, then a convolution over time and space.

    The convolution pads by reflection; its output replaces the tokens.
    """

    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.ops = ops
        self.embeddings = nn.Parameter(torch.empty(MAX_FRAMES, channels, **factory))
        self.conv = ops.Conv3d(
            channels, channels, kernel_size=3, padding=1, padding_mode="reflect", **factory
        )

    def rows(self, frames: int, like: Tensor) -> Tensor:
        """Rows of the table for the frames of a clip, (t, c); ValueError for more than it has."""
        if frames > MAX_FRAMES:
            raise ValueError(f"ExVideo has positions for {MAX_FRAMES} frames: got {frames}.")
        return self.ops.cast(self.embeddings, like)[:frames]

    def forward(self, tokens_btld: Tensor, rows_td: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """The convolution of tokens + rows; `size_hw` folds the tokens of a frame into a picture.

        ValueError for what cannot be reflected: one frame, or a side of one token.
        """
        tokens_bthwd = tokens_btld.unflatten(2, size_hw)
        if min(tokens_bthwd.shape[1:4]) < 2:
            raise ValueError(
                "ExVideo needs at least 2 frames and pictures of at least 128 pixels on each side: got "
                f"{tokens_bthwd.shape[1]} frames, {size_hw[1]}x{size_hw[0]} cells in the middle of the UNet."
            )
        if is_recorded() or is_taken_over(self.conv):
            x_bcthw = rearrange(tokens_bthwd + rows_td[:, None, None], "b t h w d -> b d t h w")
            return rearrange(self.conv(x_bcthw), "b d t h w -> b t (h w) d")
        out_btld = torch.empty_like(tokens_btld)
        for tokens_thwd, out_tld in zip(tokens_bthwd, out_btld, strict=True):
            self._sweep(tokens_thwd, rows_td, out_tld)
        return out_btld

    def _sweep(self, tokens_thwd: Tensor, rows_td: Tensor, out_tld: Tensor) -> None:
        """One clip, a few frames at a time with the frames beside them, channels last all the way."""
        count = len(tokens_thwd)
        with self.ops.weights(self.conv, tokens_thwd) as (weight, bias):
            for place in slabs.LONG_CLIP.spans(count, tokens_thwd[0].numel(), tokens_thwd.device):
                beside = [_reflected(i, count) for i in range(place.start - 1, place.stop + 1)]
                padded = _reflect(tokens_thwd, rows_td, beside)
                out_tld[place] = _convolved(padded, weight, bias).flatten(1, 2)

    def reset(self) -> None:
        """As before any training: with these SVD gives what it gives without, up to 25 frames."""
        with torch.no_grad():
            self.embeddings.copy_(initial_rows(self.embeddings.shape[1]))
            nn.init.dirac_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)


def _reflected(index: int, count: int) -> int:
    return -index if index < 0 else min(index, 2 * (count - 1) - index)


def _reflect(tokens_thwd: Tensor, rows_td: Tensor, frames: list[int]) -> Tensor:
    """Some frames of tokens + rows with one pixel more on each side, (frames, h + 2, w + 2, d)."""
    _, h, w, d = tokens_thwd.shape
    padded = tokens_thwd.new_empty(len(frames), h + 2, w + 2, d)
    for place, frame in zip(padded, frames, strict=True):
        torch.add(tokens_thwd[frame], rows_td[frame], out=place[1:-1, 1:-1])
    padded[:, 0], padded[:, -1] = padded[:, 2], padded[:, -3]
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 2], padded[:, :, -3]
    return padded


def _convolved(padded_thwd: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3x3 convolution without padding; channels last in and out.

    float32 on a CPU as three plane convolutions, which took 0.97 of conv3d's time at 320 channels, 0.84 at 640
    (AVX-512, one thread), and up to 1.2 where frames have 16 pixels or fewer. As one elsewhere, not measured,
    and in half precision, whose partial sums would lose digits.
    """
    if padded_thwd.device.type != "cpu" or padded_thwd.dtype != torch.float32:
        x_cthw = padded_thwd.permute(3, 0, 1, 2)
        return F.conv3d(x_cthw[None], weight, bias)[0].permute(1, 2, 3, 0)
    x_tchw = padded_thwd.permute(0, 3, 1, 2)
    out_tchw = F.conv2d(x_tchw[1:-1], weight[:, :, 1], bias)
    out_tchw += F.conv2d(x_tchw[:-2], weight[:, :, 0])
    out_tchw += F.conv2d(x_tchw[2:], weight[:, :, 2])
    return out_tchw.permute(0, 2, 3, 1)
