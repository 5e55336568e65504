"""Numbers and patches as tokens see them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import positions
from .operations import Operations, is_taken_over


class NumberEmbedding(nn.Module):
    """Two linear layers around a SiLU, from the sinusoid of a number to the width of the conditioning."""

    def __init__(self, sinusoid_width: int, width: int, ops: Operations, **factory):
        super().__init__()
        self.width = sinusoid_width
        self.linear_1 = ops.Linear(sinusoid_width, width, **factory)
        self.linear_2 = ops.Linear(width, width, **factory)

    def forward(self, value_b: Tensor, dtype: torch.dtype) -> Tensor:
        sinusoid_bd = positions.sinusoid(value_b, self.width).to(dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoid_bd)))


def embed_patches(proj: nn.Module, patches_bln: Tensor, ops: Operations) -> Tensor:
    """Tokens (b, l, d) of patches whose cells are in the order c, h, w, by a convolution: a linear map too."""
    if is_taken_over(proj):
        cells = patches_bln.unflatten(2, (-1, *proj.kernel_size))  # type: ignore[arg-type]
        return proj(cells.flatten(0, 1)).reshape(*patches_bln.shape[:2], -1)
    with ops.weights(proj, patches_bln) as (weight, bias):
        return F.linear(patches_bln, weight.flatten(1), bias)
