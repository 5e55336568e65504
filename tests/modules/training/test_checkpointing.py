"""Blocks that are computed anew: the same gradients to the last bit, and those of the pass that was made."""

import dataclasses

import pytest
import torch
from torch import nn

from kinetograph.modules.families.animatediff.config import MotionConfig
from kinetograph.modules.families.animatediff.model import MotionModules
from kinetograph.modules.families.svd.exvideo import ExVideoBranches
from kinetograph.modules.training import batch, parts
from kinetograph.modules.training.checkpointing import checkpoint_blocks
from kinetograph.modules.training.low_rank import LowRank
from kinetograph.modules.training.recipe import Levels, PartChoice
from kinetograph.tests import tiny_training as tiny


def exvideo():
    subject = tiny.svd()
    branches = ExVideoBranches(subject.network.config)
    tiny.randomise(branches, 7).put_into(subject.network)
    return subject


TRAININGS = {
    "cogvideox whole": (tiny.cogvideox, PartChoice("whole")),
    "cogvideox all": (tiny.cogvideox, PartChoice("lora", 2, 4.0, "all")),
    "svd whole": (tiny.svd, PartChoice("whole")),
    "svd temporal": (tiny.svd, PartChoice("lora", 2, 4.0, "temporal")),
    "svd branches": (tiny.svd, PartChoice("temporal")),
    "exvideo": (exvideo, PartChoice("exvideo")),
    "pixart whole": (tiny.pixart, PartChoice("whole")),
    "pixart all": (tiny.pixart, PartChoice("lora", 2, 4.0, "all")),
    "easyanimate": (lambda: tiny.pixart(motion=True), PartChoice("motion_module")),
}


def trained_of(network, choice):
    """What a part trains, no LoRA at its first values."""
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    layers = parts.lora_modules(choice, modules)
    if not layers:
        names = parts.whole_names(choice.name, list(parameters))
        return {name: parameters[name].requires_grad_(True) for name in names}
    low = LowRank({name: modules[name] for name in layers}, choice.rank, choice.alpha)
    low.attach()
    halves = low.parameters()
    dice = torch.Generator().manual_seed(9)
    for half in halves.values():
        half.data = torch.randn(half.shape, generator=dice) * 0.2
    return halves


def enlarged(clip):
    """Of twice the cells on each side: what ExVideo reflects at the UNet's bottom has two."""
    parts = {key: getattr(clip, key).repeat(1, 1, 2, 2) for key in ("mean", "log_variance", "image")}
    return dataclasses.replace(clip, **parts)


def loss_of(subject):
    clips = tiny.examples(subject, count=2)
    if getattr(subject.network, "middle_block", None) and subject.network.middle_block[1].positional:
        clips = [enlarged(clip) for clip in clips[:1]]
    noisy = batch.add_noise(subject, clips, Levels(), 0, "cpu")
    told = batch.tell(subject, clips, "cpu", torch.float32)
    return batch.answer(subject, noisy.x, noisy.sigma, told, torch.float32).square().mean()


def gradients(name, anew, between=lambda subject: None):
    """{weight: its gradient}; `between` happens between forward and backward."""
    make, choice = TRAININGS[name]
    subject = make()
    trained = trained_of(subject.network, choice)
    if anew:
        checkpoint_blocks(subject.blocks)
    loss = loss_of(subject)
    between(subject)
    loss.backward()
    return {key: value.grad for key, value in trained.items()}


@pytest.mark.parametrize("name", TRAININGS)
def test_every_gradient_is_that_of_the_plain_network_to_the_last_bit(name):
    plain, anew = gradients(name, False), gradients(name, True)
    assert len(plain) > 20 and plain.keys() == anew.keys()
    missing = [key for key, value in plain.items() if value is None or not value.any()]
    # SVD looks at one token, which gets all attention whatever its key; keys have no use for a bias of their own
    assert all(
        "attn2.to_q" in key or "attn2.to_k" in key or "norm2" in key for key in missing if "svd" in name
    )
    for key, value in plain.items():
        other = anew[key]
        assert (value is None) == (other is None), key
        assert value is None or torch.equal(value, other), key


@pytest.mark.parametrize("name", ["cogvideox all", "svd temporal", "pixart all"])
def test_the_first_block_learns(name):
    """Its input needs no gradient: computed anew by the reentrant kind its LoRA would get none."""
    found = {key: value for key, value in gradients(name, True).items() if is_first(key)}
    assert len(found) >= 4
    assert all(value is not None and value.any() for key, value in found.items() if "attn1" in key)


def is_first(key):
    return key.startswith(("transformer_blocks.0.attn", "input_blocks.1.1.time_stack.0.attn1"))


def switch_off(subject):
    """What MotionDirector's trainer does between a forward pass and its backward."""
    for module in subject.network.modules():
        module._forward_hooks.clear()


def switch_on(subject):
    """As a stage that trains more would."""
    subject.network.requires_grad_(True)


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("cogvideox all", switch_off),
        ("svd temporal", switch_off),
        ("pixart all", switch_on),
        ("svd temporal", switch_on),
        ("easyanimate", switch_on),
    ],
)
def test_switches_between_forward_and_backward_change_nothing(name, switch):
    plain = gradients(name, False)
    for key, value in gradients(name, True, switch).items():
        assert (value is None and plain[key] is None) or torch.equal(value, plain[key]), key


def test_switches_are_as_their_owner_set_them_after_the_backward_pass():
    subject = tiny.cogvideox()
    trained_of(subject.network, PartChoice("lora", 2, 4.0))
    checkpoint_blocks(subject.blocks)
    loss = loss_of(subject)
    switch_off(subject)
    switch_on(subject)
    loss.backward()
    assert not any(module._forward_hooks for module in subject.network.modules())
    assert all(parameter.requires_grad for parameter in subject.network.parameters())


def test_motion_modules_are_computed_anew():
    grads = []
    for anew in (False, True):
        config = MotionConfig((32, 64), layers=1, version="v3")
        modules = MotionModules(config)
        modules.start()
        tiny.randomise(modules, 3)
        if anew:
            checkpoint_blocks(module for _, module in modules.items())
        x = torch.randn(8, 32, 4, 4, generator=torch.Generator().manual_seed(0))
        modules.down_blocks[0].motion_modules[0](x, 4).square().mean().backward()
        grads.append({key: p.grad for key, p in modules.named_parameters() if p.grad is not None})
    assert len(grads[0]) == 26 and grads[0].keys() == grads[1].keys()
    assert all(torch.equal(value, grads[1][key]) for key, value in grads[0].items())


def test_lone_layers_stay_as_they_are():
    layer, block = nn.Sequential(nn.Conv2d(2, 2, 3)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    checkpoint_blocks([layer, block])
    assert "forward" not in vars(layer) and "forward" in vars(block)
