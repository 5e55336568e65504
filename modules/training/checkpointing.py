"""Blocks that keep nothing of their inside for the backward pass and compute it anew there (arXiv 1604.06174)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..layers.calls import layers_of


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Have these modules computed anew; of a network that the caller owns.

    A lone layer stays as it is: it keeps what goes in, and that is what a block keeps. Not reentrant: the first block's
    input needs no gradient, and a reentrant one would give its weights none.
    """
    for block in blocks:
        if len(list(islice(layers_of(block), 2))) > 1:
            block.forward = partial(_anew, block, block.forward)


def _anew(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    switches = Switches(block)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), switches.restored()

    return checkpoint(
        forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **named
    )


class Switches:
    """What of a block somebody may change between forward and backward: its hooks, and what gets gradients.

    The block that is computed anew is the one that was computed, whatever it is by then; MotionDirector's trainer, which
    switches LoRAs off in between, gets the gradients of another network.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.hooks = [
            (place, dict(place))
            for module in block.modules()
            for place in (module._forward_hooks, module._forward_pre_hooks)
        ]
        self.trained = [(parameter, parameter.requires_grad) for parameter in block.parameters()]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """As they were when this record was made."""
        now = Switches(self.block)
        self.set()
        try:
            yield
        finally:
            now.set()

    def set(self) -> None:
        """Put all switches so."""
        for place, hooks in self.hooks:
            if place != hooks:
                place.clear()
                place.update(hooks)
        for parameter, is_trained in self.trained:
            if parameter.requires_grad != is_trained:
                parameter.requires_grad_(is_trained)
