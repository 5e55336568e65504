"""Our loop around our network and around diffusers' with a LoRA of its own kind: the same curve of losses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kinetograph.benchmarks.cases import training as case
from kinetograph.benchmarks.harness import OURS, Setting

TINY = case.Size("cogvideox", {"num_layers": 2, "num_heads": 2, "rotary": True}, 3, 4, 6)


class Added(nn.Module):
    """A linear layer with a LoRA as a module around it, as PEFT has them."""

    def __init__(self, layer, down, up):
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Parameter(down.clone()), nn.Parameter(up.clone())

    def forward(self, x):
        return self.layer(x) + (x @ self.down.T) @ self.up.T


def diffusers_training(size, subject, weights, start, checkpointing):
    network, predict = case._cogvideox(size, subject.network, weights)
    halves = {}
    for name in {key.rpartition(".")[0] for key in start}:
        place, _, last = name.rpartition(".")
        added = Added(network.get_submodule(name), start[f"{name}.lora_down"], start[f"{name}.lora_up"])
        setattr(network.get_submodule(place), last, added)
        halves |= {f"{name}.lora_down": added.down, f"{name}.lora_up": added.up}
    return case._training(replace(subject, network=network, predict=predict, blocks=()), halves, size)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_twenty_losses_are_those_of_diffusers(monkeypatch, checkpointing):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(case, "_peer", diffusers_training)
    trainings, absent = case.build(TINY, Setting(), checkpointing)
    assert not absent and len(trainings) == 2
    first = {name: value.detach().clone() for name, value in trainings[OURS].trained.items()}
    assert max(case.compare(trainings).values()) <= 1e-5
    own, theirs = (training.trained for training in trainings.values())
    for name, value in own.items():
        assert not torch.equal(value, first[name])
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4 * value.abs().max().item())
