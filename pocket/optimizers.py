"""Muon for the matrices inside blocks, AdamW for all else, behind one face."""

from typing import Any

import torch
from torch import nn

from .parts import pack


class BlockOptimizer:
    """`blocks` names the part of the model whose 2-d weights, adaLN's and its tables aside, Muon takes.

    With `convolutions`, those too. Frozen weights are left alone.
    """

    def __init__(self, model: nn.Module, blocks: nn.Module, convolutions: bool = False) -> None:
        pack()
        from kinetograph.modules.training.muon import Muon

        most = 5 if convolutions else 2
        trained = [(name, p) for name, p in blocks.named_parameters() if p.requires_grad]
        kept = (".norm", "_table")
        wide = [p for name, p in trained if 2 <= p.dim() <= most and not any(part in name for part in kept)]
        taken = {id(p) for p in wide}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
        self.parts: list[torch.optim.Optimizer] = [Muon(wide, lr=1e-3)]
        if rest:
            adam = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
            self.parts.insert(0, adam)

    def step(self, lr: float) -> None:
        """Apply and clear the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, stored in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(stored)
