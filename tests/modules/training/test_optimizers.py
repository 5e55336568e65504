"""Optimizers against their formulas and PyTorch's own; their state as a file holds it."""

import importlib
import math
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinetograph.modules.training.muon import Muon, orthogonalise, split
from kinetograph.modules.training.optimizers import build, load_state_tensors, state_tensors
from kinetograph.modules.training.recipe import Steps


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


def reference_adamw(p, gradients, steps):
    """Loshchilov and Hutter's algorithm 2, number by number."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        p -= steps.lr * steps.weight_decay * p
        m, v = steps.beta_1 * m + (1 - steps.beta_1) * g, steps.beta_2 * v + (1 - steps.beta_2) * g * g
        p -= steps.lr * m / (1 - steps.beta_1**t) / (math.sqrt(v / (1 - steps.beta_2**t)) + steps.eps)
    return p


def reference_lion(p, gradients, steps):
    m = 0.0
    for g in gradients:
        update = steps.beta_1 * m + (1 - steps.beta_1) * g
        p -= steps.lr * (math.copysign(1.0, update) * (update != 0) + steps.weight_decay * p)
        m = steps.beta_2 * m + (1 - steps.beta_2) * g
    return p


REFERENCES = {"adamw": reference_adamw, "torch.optim.AdamW": reference_adamw, "lion": reference_lion}
# a vector is AdamW's in Muon, too
REFERENCES["muon"] = reference_adamw


@pytest.mark.parametrize("name", REFERENCES)
def test_steps_are_the_published_formula_with_every_option_of_the_recipe(name):
    """Each option far from its default, and none like another: two in each other's place would show."""
    steps = Steps(
        optimizer=name,
        lr=0.03,
        weight_decay=0.7,
        beta_1=0.6,
        beta_2=0.83,
        eps=1e-2 if name != "lion" else 1e-8,
    )
    gradients = [[0.3, -2.0, 0.0], [1.1, 0.4, -0.02], [-3.0, 0.1, 0.5], [0.2, 0.2, 0.2]]
    start = [0.5, -1.5, 2.0]
    p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = build({"vector": p}, steps)
    for gradient in gradients:
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    wanted = [REFERENCES[name](x, [g[i] for g in gradients], steps) for i, x in enumerate(start)]
    assert p.tolist() == pytest.approx(wanted, abs=1e-12)


def test_muon_is_torchs_own_but_for_its_sixteen_bits():
    """Momentum, look-ahead, the size of an update and weight decay."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    torch.manual_seed(1)
    for shape in ((6, 4), (4, 6), (8, 8)):
        ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
        mine = Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.5)
        peer = torch.optim.Muon(
            [theirs], lr=0.1, momentum=0.9, weight_decay=0.5, nesterov=True, adjust_lr_fn="match_rms_adamw"
        )
        for _ in range(4):
            before = ours.detach().clone()
            ours.grad = torch.randn(shape)
            theirs.grad = ours.grad.clone()
            mine.step()
            peer.step()
            assert torch.allclose(ours, theirs, atol=6e-3)
            assert (ours - before).abs().max() > 0.05


def test_orthogonal_means_singular_values_near_one():
    matrices = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(matrices).max() > 3


def test_a_convolution_steps_as_its_matrix():
    weights = torch.randn(4, 2, 3, 1, generator=torch.Generator().manual_seed(0))
    whole, flat = nn.Parameter(weights.clone()), nn.Parameter(weights.flatten(1).clone())
    gradient = torch.randn(4, 2, 3, 1, generator=torch.Generator().manual_seed(1))
    whole.grad, flat.grad = gradient, gradient.flatten(1)
    optimizers = Muon([whole], lr=0.1), Muon([flat], lr=0.1)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.allclose(whole.flatten(1), flat, atol=1e-7) and not torch.equal(whole, weights)


def test_muon_takes_the_matrices_inside_blocks():
    parameters = named(Net())
    matrices, rest = split(parameters)
    names = {id(p): name for name, p in parameters.items()}
    taken = {names[id(p)] for p in matrices}
    assert taken == {"blocks.0.wide.weight", "blocks.0.tall.weight", "taps.0.weight"}
    assert len(matrices) + len(rest) == len(parameters)
    chosen, _ = split(parameters, lambda name, p: name.startswith("head") and p.dim() == 2)
    assert [names[id(p)] for p in chosen] == ["head.weight"]


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


def test_without_bitsandbytes_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes.*pip install .*or choose .adamw"):
        build(named(Net()), Steps(optimizer="adamw8bit"))


WRONG = {
    "unknown": (Steps(optimizer="adam_w"), "no optimizer .adam_w.: choose adamw, adamw8bit, lion, muon"),
    "absent package": (Steps(optimizer="no_such_package.Best"), "needs a package that is not there"),
    "absent class": (Steps(optimizer="torch.optim.Best"), "no optimizer of PyTorch"),
    "no optimizer": (Steps(optimizer="torch.nn.Linear"), "no optimizer of PyTorch"),
    "a function": (Steps(optimizer="math.sqrt"), "no optimizer of PyTorch"),
    "betas of SGD": (Steps(optimizer="torch.optim.SGD", beta_2=0.95), "SGD has no betas: leave it at"),
    "eps of SGD": (Steps(optimizer="torch.optim.SGD", eps=1e-10), "SGD has no eps"),
}


@pytest.mark.parametrize("name", WRONG)
def test_optimizers_that_cannot_be_are_refused_at_the_start(name):
    steps, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        build(named(Net()), steps)


def test_nothing_to_train_is_said():
    with pytest.raises(ValueError, match="nothing to train"):
        build({}, Steps())


def test_options_reach_a_class_of_another_package():
    optimizer = build(
        named(Net()), Steps(optimizer="torch.optim.NAdam", lr=0.3, weight_decay=0.2, beta_1=0.8, eps=1e-3)
    )
    (group,) = optimizer.param_groups
    assert type(optimizer) is importlib.import_module("torch.optim").NAdam
    assert (group["lr"], group["weight_decay"], group["betas"], group["eps"]) == (
        0.3,
        0.2,
        (0.8, 0.999),
        1e-3,
    )


@pytest.mark.parametrize("name", ["lion", "muon"])
def test_a_closure_gives_the_gradients(name):
    net = Net()
    optimizer = build(named(net), Steps(optimizer=name))
    before = net.head.weight.detach().clone()

    def closure():
        loss = net(torch.ones(1, 6)).square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0 and optimizer.step() is None
    assert not torch.equal(net.head.weight, before)
