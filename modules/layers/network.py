"""What every network of this project has in common: a config, a host's layer classes, a dtype and a device."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .attention import Attention, attend
from .hooks import Places
from .operations import Operations, TorchOperations

Factory = dict[str, Any]  # dtype and device, as every layer takes them


class Network(nn.Module):
    """A module built from a config. A subclass puts its layers together in `assemble`."""

    places = Places()  # where it calls hooks
    # whether its forward takes `with_variance`, for what it learned to tell beside its prediction
    tells_variance = False

    def __init__(
        self,
        config: Any,
        ops: Operations = TorchOperations,  # type: ignore[assignment]
        attention: Attention = attend,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.config, self.ops = config, ops
        self.dtype = dtype or torch.get_default_dtype()
        self.assemble(config, ops, attention, {"dtype": dtype, "device": device})

    def assemble(self, config: Any, ops: Operations, attention: Attention, factory: Factory) -> None:
        """Make the layers of a network of these sizes."""
        raise NotImplementedError

    def numbered_layers(self) -> Iterator[nn.Module]:
        """The layers of its numbered blocks."""
        return iter(())
