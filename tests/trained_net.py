"""A small network with all kinds of weights, and steps of an optimizer along drawn numbers."""

import torch
from torch import nn


class Net(nn.Module):
    """Matrices wide and tall, a convolution, vectors, a table, and layers outside of blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        block = {
            "wide": nn.Linear(6, 4),
            "tall": nn.Linear(4, 6),
            "norm1": nn.ModuleDict({"linear": nn.Linear(6, 6)}),
        }
        self.blocks = nn.ModuleList([nn.ModuleDict(block)])
        self.taps = nn.ModuleList([nn.Conv1d(1, 2, 3, padding=1)])
        self.scale_shift_table = nn.Parameter(torch.randn(2, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        block = self.blocks[0]
        x = block["tall"](block["wide"](x)).tanh() * self.scale_shift_table[0] + self.scale_shift_table[1]
        x = x + block["norm1"]["linear"](x) + self.taps[0](x[:, None]).mean(1)
        return self.head(x)


def train(net, optimizer, numbers):
    """Steps along the gradients of drawn numbers, of each step its own."""
    for number in numbers:
        dice = torch.Generator().manual_seed(number)
        x, wanted = torch.randn(5, 6, generator=dice), torch.randn(5, 2, generator=dice)
        (net(x) - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def named(net):
    return dict(net.named_parameters())
