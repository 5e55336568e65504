"""What makes the base pass the motion word on: a motion module hears of the prompt through the base's features alone.

A photo hardly needs the word, and a base that has no use for it takes it out of its features (of a first one, a word
moved them by a thousandth of their spread). So training asks for it at every motion module's door: features, normed
as a motion module norms them, have to lie apart by word along fixed random directions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, group_norm

from ..shapes import MOTIONS
from .parts import UNET_SETTINGS

GROUPS, EPS = 32, 1e-6  # of the norm at a motion module's door
SHARPNESS = 2.0
WORDS = (*MOTIONS, "")  # the last: no word
PLACES = (
    *("input_blocks.1", "input_blocks.3"),
    *("output_blocks.0", "output_blocks.1", "output_blocks.2", "output_blocks.3"),
)


def word_of(caption: str) -> int:
    """The number of a caption's motion word."""
    return next(i for i, word in enumerate(WORDS) if caption.endswith(word))


class Hearing(nn.Module):
    """How well the motion words can be told from the pictures (n, c, h, w) that some layers give; without weights of its own."""

    def __init__(self, doors: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(0)
        self.directions = torch.randn(len(doors), len(WORDS), width, generator=dice) * width**-0.5
        self.told: list[Tensor] = []
        for number, door in enumerate(doors):
            door.register_forward_hook(self._listen(number))

    def _listen(self, number: int) -> Any:
        def hook(_: nn.Module, __: Any, x: Tensor) -> None:
            if not x.requires_grad:
                return
            y = group_norm(x.flatten(2), GROUPS, eps=EPS)
            spread = y.detach().std((0, 2), keepdim=True).clamp_min(1e-3)
            mean = (y / spread).mean(2)
            centred = mean - mean.mean(0, keepdim=True)
            self.told.append(SHARPNESS * centred @ self.directions[number].T)

        return hook

    def loss(self, words_b: Tensor) -> Tensor:
        """The mean cross entropy of the words over all places that the last pass went through."""
        told, self.told = self.told, []
        return torch.stack([cross_entropy(logits, words_b) for logits in told]).mean()


def hear_unet(unet: nn.Module) -> Hearing:
    """Behind every spatial transformer of the pocket SD."""
    doors = [unet.get_submodule(place)[1] for place in PLACES]  # type: ignore[index]
    return Hearing(doors, UNET_SETTINGS["model_channels"])
