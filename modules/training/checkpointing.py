"""Blocks that keep nothing of their inside for the backward pass and compute it anew there (arXiv 1604.06174)."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Have these modules computed anew; of a network that the caller owns.

    Not reentrant: the first block's input needs no gradient, and a reentrant one would give its weights none.
    """
    for block in blocks:
        block.forward = partial(_anew, block.forward)


def _anew(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
