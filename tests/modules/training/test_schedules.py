"""The course of the learning rate and of the limit of gradients; the running mean of weights."""

import pytest
import torch
from torch import nn

from kinetograph.benchmarks import peers
from kinetograph.modules.training.average import Average, decay_at
from kinetograph.modules.training.recipe import Steps
from kinetograph.modules.training.schedules import clip_norm, rate
from kinetograph.pocket.train_transformer import PEAK_LR, WARM_UP, lr_at
from kinetograph.pocket.training import ramp

FUN = Steps(clip=0.05, clip_rule="fun")


def test_a_constant_rate_rises_over_its_warm_up():
    """diffusers' constant_with_warmup, but for its first update, which it leaves out."""
    peers.load_diffusers()
    from diffusers.optimization import get_scheduler

    steps = Steps(warm_up=5, total=20)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=5)
    for number in range(1, 21):
        optimizer.step()
        scheduler.step()
        assert rate(number, steps) == pytest.approx(scheduler.get_last_lr()[0])
    assert [rate(number, Steps()) for number in (1, 2, 1000)] == [1.0, 1.0, 1.0]


def test_a_cosine_is_that_of_diffusers_down_to_its_end():
    peers.load_diffusers()
    from diffusers.optimization import get_scheduler

    steps = Steps(schedule="cosine", warm_up=5, total=40)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=5, num_training_steps=40)
    assert [rate(number, steps) for number in range(1, 6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for number in range(2, 41):
        optimizer.step()
        scheduler.step()
        wanted = scheduler.get_last_lr()[0]
        assert number <= 5 or rate(number, steps) == pytest.approx(max(0.01, wanted))
    assert rate(41, steps) == rate(1000, steps) == 0.01


def test_the_pocket_models_courses():
    cosine = Steps(schedule="cosine", warm_up=WARM_UP, total=1500)
    hold = Steps(schedule="hold", warm_up=40, total=900)
    for done in range(0, 900, 7):
        assert PEAK_LR * rate(done + 1, cosine) == pytest.approx(lr_at(done, 1500), rel=1e-12)
        assert rate(done + 1, hold) == pytest.approx(ramp(done, 900, warm_up=40), rel=1e-12)
    assert rate(1, Steps(schedule="hold", total=10)) == 1.0


def test_funs_limit_narrows_over_a_thousand_updates():
    table = {0: 0.25, 250: 0.2, 500: 0.15, 999: 0.0502, 1000: 0.05, 5000: 0.05}
    for done, wanted in table.items():
        assert clip_norm(done + 1, 0.01, FUN) == pytest.approx(wanted, abs=1e-12)


def test_funs_accidents_are_cut_below_the_limit():
    """Above five limits, after update 1000: by as much as the norm is above, at most tenfold."""
    assert clip_norm(1001, 100.0, FUN) == pytest.approx(0.05)
    assert clip_norm(1002, 0.25, FUN) == pytest.approx(0.05)
    assert clip_norm(1002, 0.26, FUN) == pytest.approx(0.05 / 5.2)
    assert clip_norm(1002, 0.4, FUN) == pytest.approx(0.05 / 8)
    assert clip_norm(1002, 100.0, FUN) == pytest.approx(0.005)


def test_a_constant_limit_and_none():
    for norm in (0.1, 100.0):
        assert clip_norm(1, norm, Steps(clip=0.3)) == clip_norm(5000, norm, Steps(clip=0.3)) == 0.3
        assert (
            clip_norm(1, norm, Steps(clip=0.0)) == clip_norm(1, norm, Steps(clip=0.0, clip_rule="fun")) == 0.0
        )


def test_the_running_mean_forgets_its_youth():
    table = {1: 0.0, 2: 0.181818, 10: 0.526316, 1000: 0.99108, 200_000: 0.9999}
    assert {u: round(decay_at(u, 0.9999), 6) for u in table} == table


def test_the_running_mean_is_that_of_diffusers():
    peers.load_diffusers()
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    ours, theirs = Average(dict(net.named_parameters()), 0.8), EMAModel(net.parameters(), decay=0.8)
    for _ in range(60):
        with torch.no_grad():
            for p in net.parameters():
                p.normal_()
        ours.follow()
        theirs.step(net.parameters())
        for mean, wanted in zip(ours.weights.values(), theirs.shadow_params, strict=True):
            assert torch.allclose(mean, wanted, atol=1e-6)
    assert not torch.allclose(ours.weights["weight"], net.weight, atol=0.1)


def moved(updates=3):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    average = Average(dict(net.named_parameters()), 0.9)
    for _ in range(updates):
        with torch.no_grad():
            net.weight.add_(1.0)
        average.follow()
    return net, average


def test_means_and_weights_change_places_for_a_while_even_through_an_error():
    net, average = moved()
    pointer, weight = net.weight.data_ptr(), net.weight.detach().clone()
    mean = average.weights["weight"].clone()
    with pytest.raises(KeyError), average.swapped():
        assert torch.equal(net.weight, mean) and net.weight.data_ptr() == pointer
        raise KeyError
    assert torch.equal(net.weight, weight) and torch.equal(average.weights["weight"], mean)
    assert not torch.equal(mean, weight)


def test_the_mean_goes_on_from_its_state():
    net, average = moved(3)
    state = {name: tensor.clone() for name, tensor in average.state().items()}
    again = Average(dict(net.named_parameters()), 0.9)
    again.load(state)
    with torch.no_grad():
        net.weight.sub_(7.0)
    average.follow()
    again.follow()
    assert again.num_updates == 4
    assert all(torch.equal(mean, again.weights[name]) for name, mean in average.weights.items())
    with pytest.raises(ValueError, match="another training: 1 tensors, 2 wanted"):
        again.load({"weight": state["weight"], "num_updates": state["num_updates"]})


@pytest.mark.parametrize("decay", [-0.1, 1.0, 3.0])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="steps.ema.*between 0 and 1"):
        Average(dict(nn.Linear(2, 2).named_parameters()), decay)


def test_sixteen_bits_are_too_few_for_a_mean():
    with pytest.raises(ValueError, match="weights in fp32: weight is torch.bfloat16"):
        Average(dict(nn.Linear(2, 2).bfloat16().named_parameters()), 0.9)
