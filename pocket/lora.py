"""Low-rank changes of linear layers, for training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """Halves for each of some weights (rows, columns), by name; the upper halves start at zero."""

    def __init__(self, weights: Mapping[str, Tensor], rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in weights.items():
            rows, columns = weight.shape
            key = name.removesuffix(".weight").replace(".", "|")
            self.down[key] = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
            self.up[key] = nn.Parameter(torch.zeros(rows, rank))

    def changes(self) -> dict[str, Tensor]:
        """What is added to each weight at strength 1, by its name."""
        return {key.replace("|", ".") + ".weight": self.up[key] @ self.down[key] for key in self.down}

    def halves(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Lower and upper half by the layer's name."""
        return {key.replace("|", "."): (self.down[key], self.up[key]) for key in self.down}
