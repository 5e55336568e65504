"""What an optimizer remembers, as a file holds it."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinetograph.modules.training.optimizers import build, load_state_tensors, state_tensors
from kinetograph.modules.training.recipe import Steps
from kinetograph.tests.trained_net import Net, named, train


class Adaptive(torch.optim.Optimizer):
    """Finds its own step, kept in its group; numbers, one table for all, and nothing beside the weights."""

    def __init__(self, params, lr, d0=1e-2):
        self.table = torch.linspace(0, 1, 4)
        super().__init__(params, {"lr": lr, "d": d0, "warm": False})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["d"], group["warm"] = group["d"] * 1.5, True
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"count": 0, "table": self.table, "size": 0.5, "nothing": None}
                state["count"] += 1
                state["size"] *= 0.9
                p.sub_(p.grad * state["size"] * group["d"] * state["table"].sum() / state["count"])


ADAPTIVE = f"{__name__}.Adaptive"
OPTIMIZERS = ["adamw", "lion", "muon", "torch.optim.RAdam", "torch.optim.SGD", ADAPTIVE]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_goes_on_from_a_file_as_if_it_had_never_stopped(name, tmp_path):
    """Names decide what belongs to what: the second run has its parameters in another order."""
    steps = Steps(optimizer=name, lr=1e-2)
    whole, begun, resumed = Net(), Net(), Net()
    train(whole, build(named(whole), steps), range(6))
    optimizer = build(named(begun), steps)
    train(begun, optimizer, range(3))
    save_file(state_tensors(optimizer, named(begun)), tmp_path / "state.safetensors")
    resumed.load_state_dict(begun.state_dict())
    turned = dict(reversed(named(resumed).items()))
    second = build(turned, steps)
    load_state_tensors(second, turned, load_file(tmp_path / "state.safetensors"))
    train(resumed, second, range(3, 6))
    for key, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[key]), key
    cold = Net()
    cold.load_state_dict(begun.state_dict())
    train(cold, build(named(cold), steps), range(3, 6))
    forgets = any(not torch.equal(w, cold.state_dict()[k]) for k, w in whole.state_dict().items())
    assert forgets == (name != "torch.optim.SGD")


def test_eight_bits_go_on_from_a_file_too(tmp_path):
    """Its one table for all weights, its numbers, and moments of one byte, where a tensor is large enough for them."""
    pytest.importorskip("bitsandbytes")
    steps = Steps(optimizer="adamw8bit", lr=1e-2)

    def wide():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 90), nn.Linear(90, 90), nn.Linear(90, 80), nn.Linear(80, 2))

    whole, begun, resumed = wide(), wide(), wide()
    train(whole, build(named(whole), steps), range(6))
    optimizer = build(named(begun), steps)
    train(begun, optimizer, range(3))
    tensors = state_tensors(optimizer, named(begun))
    assert tensors["1.weight.state1"].dtype == torch.uint8
    assert torch.equal(tensors["1.weight.qmap1"], tensors["2.weight.qmap1"])
    save_file(tensors, tmp_path / "state.safetensors")
    resumed.load_state_dict(begun.state_dict())
    second = build(named(resumed), steps)
    load_state_tensors(second, named(resumed), load_file(tmp_path / "state.safetensors"))
    train(resumed, second, range(3, 6))
    assert all(torch.equal(p, named(resumed)[name]) for name, p in named(whole).items())


def test_the_state_has_a_name_for_each_tensor():
    net = Net()
    optimizer = build(named(net), Steps())
    train(net, optimizer, range(2))
    tensors = state_tensors(optimizer, named(net))
    fields = {f"{name}.{field}" for name in named(net) for field in ("step", "exp_avg", "exp_avg_sq")}
    assert set(tensors) == fields | {"class.AdamW"}
    assert tensors["head.bias.step"].dtype == torch.float32 and tensors["head.bias.step"] == 2


def test_who_reads_a_state_keeps_it():
    """The tensors that were loaded do not change while the training goes on."""
    net = Net()
    optimizer = build(named(net), Steps())
    train(net, optimizer, range(2))
    tensors = state_tensors(optimizer, named(net))
    other = build(named(net), Steps())
    load_state_tensors(other, named(net), tensors)
    before = {key: value.clone() for key, value in tensors.items()}
    train(net, other, range(2, 4))
    assert all(torch.equal(value, before[key]) for key, value in tensors.items())


def test_the_state_of_another_training_is_refused():
    net = Net()
    optimizer, lion = build(named(net), Steps()), build(named(net), Steps(optimizer="lion"))
    train(net, optimizer, range(2))
    tensors = state_tensors(optimizer, named(net))
    with pytest.raises(ValueError, match="that of AdamW, this training uses Lion"):
        load_state_tensors(lion, named(net), tensors)
    fewer = {name: p for name, p in named(net).items() if name != "head.bias"}
    with pytest.raises(ValueError, match="head.bias.*which is not trained"):
        load_state_tensors(build(fewer, Steps()), fewer, tensors)


class Nested(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p]["history"] = [p.clone()]


def test_a_state_that_no_file_can_hold_is_said():
    net = Net()
    optimizer = Nested(net.parameters(), lr=1e-2)
    train(net, optimizer, range(1))
    with pytest.raises(ValueError, match="keeps list in .*history"):
        state_tensors(optimizer, named(net))
