"""Muon for the matrices inside blocks, AdamW for all else, behind one face.

Muon: Keller Jordan, 2024: momentum whose matrix is made orthogonal before it is applied. Written out because
torch's own works in bfloat16, which a CPU without bfloat16 units does slowly, and one matrix at a time.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the published iteration
ADAM_SIZE = 0.2  # root mean square of an update at lr 1, as AdamW's (arXiv 2502.16982, sec. 2.2)


def orthogonalise(g_nij: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, by Newton-Schulz iteration; i <= j."""
    a, b, c = QUINTIC
    x = g_nij / g_nij.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Equal shapes go through one batched product; a convolution counts as a matrix (out, in * taps)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(sorted(p.flatten(1).shape))].append(p)
            for alike in shapes.values():
                self._step_alike(alike, group["lr"], group["momentum"])

    def _step_alike(self, params: list[nn.Parameter], lr: float, momentum: float) -> None:
        updates = [self._look_ahead(p, momentum).flatten(1) for p in params]
        wide = [u if u.shape[0] <= u.shape[1] else u.T for u in updates]
        scale = ADAM_SIZE * max(wide[0].shape) ** 0.5
        for p, given, update in zip(params, updates, orthogonalise(torch.stack(wide)), strict=True):
            update = update if given.shape[0] <= given.shape[1] else update.T
            p.add_(update.reshape(p.shape), alpha=-lr * scale)

    def _look_ahead(self, p: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov: the gradient mixed with its running mean once more."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return p.grad.lerp(state["momentum"].lerp_(p.grad, 1 - momentum), momentum)


class BlockOptimizer:
    """`blocks` names the part of the model whose 2-d weights, adaLN's and its tables aside, Muon takes.

    With `convolutions`, those too. Frozen weights are left alone.
    """

    def __init__(self, model: nn.Module, blocks: nn.Module, convolutions: bool = False) -> None:
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
