"""Attention as a function that a host may replace by its own kernel."""

from typing import Any, Protocol

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# sequences times heads that every attention kernel takes at once
MOST_SEQUENCES = 65535


class Attention(Protocol):
    """Softmax attention over (b, heads, l, d) tensors; returns (b, l, heads * d)."""

    def __call__(
        self, q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, transformer_options: Any = None
    ) -> Tensor: ...


def attend(q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, transformer_options: Any = None) -> Tensor:
    """PyTorch's scaled dot product attention, scale d^-1/2. `transformer_options` is for hosts only."""
    out_bhld = F.scaled_dot_product_attention(q_bhld, k_bhld, v_bhld)
    return rearrange(out_bhld, "b h l d -> b l (h d)")


def packed(x_bhld: Tensor) -> Tensor:
    """Head by head in memory on a CPU, whose attention reads keys and values a tenth faster so."""
    return x_bhld.contiguous() if x_bhld.device.type == "cpu" else x_bhld
