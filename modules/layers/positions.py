"""Where a token stands: sinusoids, sin-cos tables and rotary tables over space and time.

Tables are computed in float64 on the CPU and rounded once, so every device sees the same numbers.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import slabs
from .operations import is_recorded

THETA = 10000.0


def sinusoid(positions_b: Tensor, width: int) -> Tensor:
    """Timestep embedding, cosines before sines, float32 (b, width).

    DDPM (arXiv 2006.11239), appendix B, in the order that the diffusion transformers were trained with.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=positions_b.device) * -math.log(THETA) / half
    angles = positions_b.float()[:, None] * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_axis(positions: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
    """Sines then cosines of positions along one axis, float64 (n, width)."""
    frequencies = THETA ** -(np.arange(width // 2) / (width / 2))
    angles = np.outer(np.asarray(positions, dtype=np.float64), frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_plane(rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
    """Sin-cos positions of the cells of a plane, float64 (h * w, channels): first half x, second half y."""
    x = sincos_axis(columns, channels // 2)
    y = sincos_axis(rows, channels // 2)
    return np.concatenate([np.tile(x, (len(rows), 1)), np.repeat(y, len(columns), axis=0)], axis=1)


def crop_region(grid: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(top, left), (bottom, right) of a grid that is fitted into `base` with its aspect kept, centred.

    Sizes are (height, width). Halves round to even, as in the code the models were trained with
    (zai-org/CogVideo): 48x84 in 30x45 gives (2, 0), (28, 45).
    """
    (height, width), (base_height, base_width) = grid, base
    if height * base_width > base_height * width:
        fitted = (base_height, round(base_height / height * width))
    else:
        fitted = (round(base_width / width * height), base_width)
    top, left = round((base_height - fitted[0]) / 2), round((base_width - fitted[1]) / 2)
    return (top, left), (top + fitted[0], left + fitted[1])


def crop_coordinates(grid: tuple[int, int], base: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rotary coordinates of a grid's rows and columns inside `base`: start + (stop - start) * i / n."""
    start, stop = crop_region(grid, base)
    rows, columns = (
        np.linspace(first, last, count, endpoint=False)
        for first, last, count in zip(start, stop, grid, strict=True)
    )
    return rows, columns


def rotary_angles(times: np.ndarray, rows: np.ndarray, columns: np.ndarray, head_dim: int) -> np.ndarray:
    """Rotation of each channel pair of each token, in radians, float64 (t * h * w, head_dim / 2).

    A quarter of the channels turns with time, three eighths with the row, three eighths with the column
    (CogVideoX, arXiv 2408.06072, sec. 2.2).
    """
    widths = (head_dim // 4, head_dim // 8 * 3, head_dim // 8 * 3)
    axes = [
        np.outer(places, THETA ** -(np.arange(0, width, 2) / width))
        for places, width in zip((times, rows, columns), widths, strict=True)
    ]
    t, h, w = len(times), len(rows), len(columns)
    spread = [
        np.broadcast_to(axes[0][:, None, None], (t, h, w, axes[0].shape[1])),
        np.broadcast_to(axes[1][None, :, None], (t, h, w, axes[1].shape[1])),
        np.broadcast_to(axes[2][None, None], (t, h, w, axes[2].shape[1])),
    ]
    return np.concatenate(spread, axis=-1).reshape(t * h * w, -1)


def rotary_table(angles: np.ndarray, device: torch.device) -> Tensor:
    """Unit complex numbers to multiply channel pairs with, complex64 (l, head_dim / 2)."""
    return torch.from_numpy(np.exp(1j * angles).astype(np.complex64)).to(device)


def rotate(x_bhld: Tensor, table_ld: Tensor, start: int = 0) -> Tensor:
    """Rotary embedding (arXiv 2104.09864) of interleaved channel pairs of the tokens from `start` on.

    Computes in float32. Changes `x_bhld` in place unless a graph is being recorded; use the result.
    """
    if is_recorded():
        still, moving = x_bhld.split((start, x_bhld.shape[2] - start), dim=2)
        return torch.cat([still, _rotated(moving, table_ld)], dim=2)
    moving = x_bhld[:, :, start:]
    if x_bhld.dtype == torch.float32:
        _pairs(moving).mul_(table_ld)
        return x_bhld
    # Twice in float32, which is twice as wide.
    for place in slabs.TOKENS.spans(moving.shape[2], 4 * moving[:, :, :1].numel(), x_bhld.device):
        moving[:, :, place] = _rotated(moving[:, :, place], table_ld[place])
    return x_bhld


def _rotated(x_bhld: Tensor, table_ld: Tensor) -> Tensor:
    return torch.view_as_real(_pairs(x_bhld.float()) * table_ld).flatten(-2).to(x_bhld.dtype)


def _pairs(x_bhld: Tensor) -> Tensor:
    return torch.view_as_complex(x_bhld.unflatten(-1, (-1, 2)))


class TableCache:
    """The last few tables a model needed, by what they depend on.

    Not weights: copies and pickles of a model start with an empty cache.
    """

    def __init__(self, size: int = 4):
        self.size = size
        self._tables: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The tables under `key`, built if they are not there. They may enter a graph at any time."""
        if key not in self._tables:
            with torch.inference_mode(False):  # inference tensors could not be saved for a backward pass
                self._tables[key] = build()
        self._tables.move_to_end(key)
        while len(self._tables) > self.size:
            self._tables.popitem(last=False)
        return self._tables[key]

    def __len__(self) -> int:
        return len(self._tables)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return TableCache, (self.size,)
