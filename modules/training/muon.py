"""Muon for the matrices inside blocks, AdamW for all else, as one optimizer.

Muon: Keller Jordan, 2024: momentum whose matrix is made orthogonal before it is applied. Written out because
torch's own works in bfloat16, which a CPU without bfloat16 units does slowly, and one matrix at a time.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the published iteration
ADAM_SIZE = 0.2  # root mean square of an update at lr 1, as AdamW's (arXiv 2502.16982, sec. 2.2)
# adaLN's weights and its tables are AdamW's
LEFT_OUT = (".norm", "_table")


def orthogonalise(g_nij: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, by Newton-Schulz iteration; i <= j."""
    a, b, c = QUINTIC
    x = g_nij / g_nij.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def is_inside_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a weight: a matrix or a convolution inside a numbered block, adaLN's aside."""
    inside = re.search(r"(^|\.)\d+\.", name) is not None
    return 2 <= parameter.dim() <= 5 and inside and not any(part in name for part in LEFT_OUT)


def split(
    parameters: Mapping[str, nn.Parameter], is_matrix: Callable[[str, Tensor], bool] = is_inside_matrix
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(those that Muon takes, those that AdamW takes)."""
    names = {name for name, parameter in parameters.items() if is_matrix(name, parameter)}
    matrices = [parameter for name, parameter in parameters.items() if name in names]
    return matrices, [parameter for name, parameter in parameters.items() if name not in names]


class Muon(torch.optim.Optimizer):
    """Equal shapes go through one batched product; a convolution counts as a matrix (out, in * taps).

    `rest` is what AdamW takes, with `betas` and `eps`. Weight decay is AdamW's way for both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter] = (),
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "orthogonal": True},
            {"params": list(rest), "orthogonal": False},
        ]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply the gradients, those of `closure` where there is one; returns its loss."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for p in trained:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            if group["orthogonal"]:
                self._step_matrices(trained, group["lr"], group["momentum"])
            else:
                self._step_rest(trained, group)
        return loss

    def _step_matrices(self, params: list[nn.Parameter], lr: float, momentum: float) -> None:
        shapes = defaultdict(list)
        for p in params:
            shapes[tuple(sorted(p.flatten(1).shape))].append(p)
        for alike in shapes.values():
            self._step_alike(alike, lr, momentum)

    def _step_alike(self, params: list[nn.Parameter], lr: float, momentum: float) -> None:
        updates = [self._look_ahead(p, momentum).flatten(1) for p in params]
        wide = [u if u.shape[0] <= u.shape[1] else u.T for u in updates]
        scale = ADAM_SIZE * max(wide[0].shape) ** 0.5
        for p, before, update in zip(params, updates, orthogonalise(torch.stack(wide)), strict=True):
            update = update if before.shape[0] <= before.shape[1] else update.T
            p.add_(update.reshape(p.shape), alpha=-lr * scale)

    def _look_ahead(self, p: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov: the gradient mixed with its running mean once more."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return p.grad.lerp(state["momentum"].lerp_(p.grad, 1 - momentum), momentum)

    def _step_rest(self, params: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        """AdamW (arXiv 1711.05101, algorithm 2)."""
        beta_1, beta_2 = group["betas"]
        for p in params:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            state["step"] += 1
            mean = state["exp_avg"].lerp_(p.grad, 1 - beta_1)
            square = state["exp_avg_sq"].mul_(beta_2).addcmul_(p.grad, p.grad, value=1 - beta_2)
            size = (square / (1 - beta_2 ** state["step"])).sqrt_().add_(group["eps"])
            p.addcdiv_(mean, size, value=-group["lr"] / (1 - beta_1 ** state["step"]))
