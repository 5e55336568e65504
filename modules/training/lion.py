"""Lion: the sign of a mean of gradients as the update (Chen et al., arXiv 2302.06675, algorithm 2)."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class Lion(torch.optim.Optimizer):
    """Every weight moves by lr at each step: lr a tenth of AdamW's, weight decay ten times (sec. 5 of the paper)."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply the gradients, those of `closure` where there is one; returns its loss."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            lr, (beta_1, beta_2) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                update = state["exp_avg"].lerp(p.grad, 1 - beta_1).sign_()
                p.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr)
                state["exp_avg"].lerp_(p.grad, 1 - beta_2)
        return loss
