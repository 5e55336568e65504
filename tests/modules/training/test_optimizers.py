"""Optimizers against their formulas and PyTorch's own."""

import importlib
import math
import sys

import pytest
import torch
from torch import nn

from kinetograph.modules.training.muon import Muon, orthogonalise, split
from kinetograph.modules.training.optimizers import build
from kinetograph.modules.training.recipe import Steps
from kinetograph.tests.trained_net import Net, named


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
    """Each option far from its default, and none like another: two in each other's place would show.

    The second gradient of the second number lies between what the two betas of Lion make of the first.
    """
    steps = Steps(
        optimizer=name,
        lr=0.03,
        weight_decay=0.7,
        beta_1=0.6,
        beta_2=0.83,
        eps=1e-2 if name != "lion" else 1e-8,
    )
    gradients = [[0.3, -2.0, 0.0], [1.1, 0.6, -0.02], [-3.0, 0.1, 0.5], [0.2, 0.2, 0.2]]
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


def test_without_bitsandbytes_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes.*pip install .*or choose adamw"):
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
