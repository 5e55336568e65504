"""The places where a UNet lets others look at what flows through it, and change it.

A network calls these methods as it goes; what they return goes on in place of what they were given. `Hooks`
itself changes nothing. Whoever wants to see something overrides the methods of those places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

Stage = Literal["input", "middle", "output"]
# Frames, and the shape of the skip that the next block of the way up takes (empty: there is none), to frames.
Instead = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Places:
    """Where a network calls hooks: nowhere, unless it says so."""

    width: int = 0  # channels of its first block
    blocks: Mapping[Stage, int] = field(default_factory=dict)  # how many numbered blocks each stage has
    transformers: frozenset[tuple[Stage, int]] = frozenset()  # the blocks that hold one


@dataclass(frozen=True)
class Inputs:
    """What a network was called with."""

    x_nchw: Tensor
    timestep_n: Tensor
    context_nld: Tensor
    y_nd: Tensor | None
    frames: int  # per clip
    image_only_bt: Tensor | None


class Hooks:
    """One forward pass under observation, in the order in which a network calls these methods.

    `into_transformers` says whether anybody looks into them: then they call the last three methods, on whole
    tensors, and nothing that was shown is changed later.
    """

    into_transformers = False

    def begin(self, inputs: Inputs) -> None:
        """Before anything else."""

    def time_embedding(self, emb_nd: Tensor) -> Tensor:
        """What the noise level gives, before the other numbers are added."""
        return emb_nd

    def embedding(self, emb_bte: Tensor) -> None:
        """What every block is told, before its SiLU; t is 1 where the frames of a clip share a row."""

    def enter(self, stage: Stage, number: int) -> None:
        """A numbered block is next."""

    def instead_of(self, layer: nn.Module) -> Instead | None:
        """What does the work of a layer of a block; None: the layer itself."""
        return None

    def after_input(self, x_nchw: Tensor) -> Tensor:
        """A block of the way down, as it is kept for the way up."""
        return x_nchw

    def after_skip(self, x_nchw: Tensor) -> Tensor:
        """The same, as it goes on downwards."""
        return x_nchw

    def after_middle(self, x_nchw: Tensor) -> Tensor:
        return x_nchw

    def before_output(self, x_nchw: Tensor, skip_nchw: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a block of the way up takes, from below and from the side; None: nothing from the side."""
        return x_nchw, skip_nchw

    def enter_transformer(self, x_nchw: Tensor) -> None:
        """A transformer is next."""

    def leave_transformer(self) -> None:
        """It is done."""

    def enter_tokens(self, heads: int, head_dim: int) -> None:
        """A block of attention over tokens is next."""

    def attend(self, name: str, layer: Any, y_bld: Tensor, context_bld: Tensor | None) -> Tensor:
        """Attention `name` of normed tokens, to themselves where there is no context.

        `layer` has `to_q`, `to_k`, `to_v` and `to_out[0]`, and works when called with tokens and a context.
        """
        return layer(y_bld, y_bld if context_bld is None else context_bld, None)

    def between(self, x_bld: Tensor) -> Tensor:
        """Tokens between self-attention and cross-attention."""
        return x_bld


NO_HOOKS = Hooks()
