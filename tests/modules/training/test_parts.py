"""What each trainable part is: the counts of the published trainings, on networks of the published sizes without data."""

import re
from functools import cache

import pytest
import torch

from kinetograph.modules.families import ANIMATEDIFF, COGVIDEOX, EASYANIMATE, FAMILIES, PIXART, SVD
from kinetograph.modules.families.svd.exvideo import ExVideoBranches
from kinetograph.modules.training.parts import lora_modules, whole_names
from kinetograph.modules.training.recipe import PartChoice
from kinetograph.tests import motion_files
from kinetograph.tests import motion_loras as loras


def published(family, kind="diffusion_model", number=0):
    """A family's published network; the same for all tests."""
    return _published(family.id, kind, number)


@cache
def _published(family_id, kind, number):
    (part,) = [family.parts[kind] for family in FAMILIES if family.id == family_id]
    return part.empty(part.published[number])


def cogvideox(variant):
    part = COGVIDEOX.parts["diffusion_model"]
    (number,) = [i for i, config in enumerate(part.published) if part.variant(config) == variant]
    return published(COGVIDEOX, number=number)


@cache
def easyanimate():
    """PixArt with the motion modules in its blocks."""
    part = PIXART.parts["diffusion_model"]
    network, modules = part.empty(part.published[0]), published(EASYANIMATE, "motion_module")
    modules.put_into(network)
    return network


@cache
def exvideo():
    part = SVD.parts["diffusion_model"]
    network = part.empty(part.published[0])
    branches = SVD.parts["extension"].empty(part.published[0])
    assert isinstance(branches, ExVideoBranches)
    branches.put_into(network)
    return network


def motion(version):
    return ANIMATEDIFF.parts["motion_module"].empty(motion_files.PUBLISHED[version])


@cache
def picture_unet():
    """What is linear in the transformers of SD1.5's UNet, and some that is not there, under the host's names."""
    layers = loras.of_unet(more=loras.FORWARD)
    modules = {
        f"unet.{loras.to_host(name)}": torch.nn.Linear(into, out, device="meta")
        for name, (out, into) in layers.items()
    }
    modules |= {
        "unet.time_embed.0": torch.nn.Linear(320, 1280, device="meta"),
        "unet.input_blocks.1.0.emb_layers.1": torch.nn.Linear(1280, 320, device="meta"),
        "unet.input_blocks.1.1.proj_in": torch.nn.Conv2d(320, 320, 1, device="meta"),
    }
    return modules


@cache
def animatediff(version):
    """Modules of the UNet and of motion modules beside it."""
    beside = {f"motion.{name}": module for name, module in motion(version).named_modules()}
    return {**picture_unet(), **beside}


def values(network, names):
    weights = dict(network.named_parameters())
    return sum(weights[name].numel() for name in names)


def lora_values(modules, names, rank):
    return sum(rank * sum(modules[name].weight.shape) for name in names)


MILLION = 1e6
WHOLE = {
    "EasyAnimate t2v": (easyanimate, "motion_module", 728, 818.17),
    # one is the learned text of no caption, which diffusers has beside
    "EasyAnimate t2i": (easyanimate, "whole", 603, 610.86),
    "Fun 2B": (lambda: cogvideox("Fun-2B-InP"), "whole", 736, 1694),
    "Fun 5B": (lambda: cogvideox("Fun-5B-InP"), "whole", 1024, 5570),
    "ExVideo": (exvideo, "exvideo", 528, 832.96),
    # 30 of ExVideo's 33 tensors are SVD's own
    "SVD's branches": (exvideo, "temporal", 480, 832.96 - 336.15),
}


@pytest.mark.parametrize("row", WHOLE)
def test_tensors_that_are_trained_whole(row):
    network, part, tensors, millions = WHOLE[row]
    network = network()
    names = whole_names(part, (name for name, _ in network.named_parameters()))
    assert len(names) == tensors
    if row != "SVD's branches":
        assert values(network, names) / MILLION == pytest.approx(millions, rel=3e-4)
    # buffers that are saved are no weights to train
    assert names == whole_names(part, network.state_dict())


@pytest.mark.parametrize("version, tensors, millions", [("v2", 546, 453.21), ("v1", 520, 417.14)])
def test_animatediffs_motion_modules_without_their_tables(version, tensors, millions):
    modules = motion(version)
    state = {f"motion.{key}": value for key, value in modules.state_dict().items()}
    names = whole_names("motion_module", ["unet.out.2.weight", *state])
    assert len(names) == tensors and not any(name.endswith(".pe") for name in names)
    assert sum(state[name].numel() for name in names) / MILLION == pytest.approx(millions, abs=0.01)
    assert names == [f"motion.{name}" for name, _ in modules.named_parameters()]


def test_animatediffs_sdxl_beta():
    names = whole_names("motion_module", (f"motion.{key}" for key in motion("SDXL beta").state_dict()))
    assert len(names) == 390


def test_the_whole_unet_of_pictures_is_without_the_motion_beside_it():
    """Its 686 tensors are counted on the host (tests/host/test_training_files.py)."""
    unet = [f"{name}.weight" for name in picture_unet()]
    state = [*unet, *(f"motion.{key}" for key in motion("v3").state_dict())]
    assert whole_names("whole", state) == unet


LORAS = {
    "AnimateDiff's domain adapter": (
        lambda: animatediff("v3"),
        "domain_adapter",
        "attention",
        128,
        128,
        25.51,
    ),
    "MotionLoRA v2": (lambda: animatediff("v2"), "motion_lora", "attention", 64, 168, 19.33),
    "MotionLoRA v3": (lambda: animatediff("v3"), "motion_lora", "attention", 64, 160, 18.02),
    "MotionDirector over time v2": (lambda: animatediff("v2"), "motion_lora", "all", 64, 210, 36.25),
    "MotionDirector over time v3": (lambda: animatediff("v3"), "motion_lora", "all", 64, 200, 33.79),
    "MotionDirector over space": (lambda: animatediff("v2"), "lora", "all", 64, 160, 23.94),
    "SD1.5, attention": (lambda: animatediff("v2"), "lora", "attention", 128, 128, 25.51),
    "EasyAnimate t2i": (lambda: published(PIXART), "lora", "all", 128, 286, 109.97),
    "EasyAnimate t2v": (easyanimate, "lora", "all", 128, 286 + 336, 250.35),
    "Fun 2B": (lambda: cogvideox("Fun-2B-InP"), "lora", "all", 128, 245, 227.14),
    "Fun 5B": (lambda: cogvideox("Fun-5B-InP"), "lora", "all", 128, 341, 503.72),
    # the specification has 504.14: that is of 1.5-5B, whose patches are of 16 channels in place of 33
    "Fun 1.5": (lambda: cogvideox("Fun-1.5-5B-InP"), "lora", "all", 128, 342, 504.14 + 128 * 8 * 17 / 1e6),
    "CogVideoX 1.5": (lambda: cogvideox("1.5-5B"), "lora", "all", 128, 342, 504.14),
    "CogVideoX 2B": (lambda: cogvideox("2B"), "lora", "attention", 128, 120, 58.98),
    "CogVideoX 5B": (lambda: cogvideox("5B"), "lora", "attention", 128, 168, 132.12),
    "SVD": (lambda: published(SVD), "lora", "attention", 64, 256, 26.56),
    "SVD over time": (lambda: published(SVD), "lora", "temporal", 64, 128, 13.28),
    "SVD over time, to frames": (lambda: published(SVD), "lora", "temporal_self", 64, 64, 6.39),
}


@pytest.mark.parametrize("row", LORAS)
def test_layers_that_get_a_lora(row):
    network, part, layers, rank, count, millions = LORAS[row]
    network = network()
    modules = network if isinstance(network, dict) else dict(network.named_modules())
    names = lora_modules(PartChoice(part, rank=rank, layers=layers), modules)
    assert len(names) == count
    assert lora_values(modules, names, rank) / MILLION == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("name, size", [("Fun-2B-InP", 454_279_168), ("Fun-5B-InP", 1_007_435_776)])
def test_published_loras_have_the_bytes_of_these_layers(name, size):
    """Reward LoRAs at 16 bit, as the hub tells their bytes."""
    modules = dict(cogvideox(name).named_modules())
    names = lora_modules(PartChoice("lora", rank=128, layers="all"), modules)
    assert 2 * lora_values(modules, names, 128) == size


def test_a_lora_trains_nothing_whole_and_the_other_way_round():
    network = published(SVD)
    assert whole_names("lora", network.state_dict()) == []
    assert lora_modules(PartChoice("temporal"), dict(network.named_modules())) == []


LACKING = [
    (PIXART, PartChoice("motion_module"), "no motion modules are in this network"),
    (PIXART, PartChoice("motion_lora"), "a MotionLoRA changes AnimateDiff's motion modules"),
    (PIXART, PartChoice("domain_adapter"), "a domain adapter changes the UNet of SD1.5 or SDXL"),
    (PIXART, PartChoice("lora", layers="temporal"), "only SVD has branches over time"),
    (PIXART, PartChoice("temporal"), "only SVD has branches over time"),
    # a plain SVD has no positions of ExVideo's
    (SVD, PartChoice("exvideo"), "ExVideo is trained on SVD with its positions in place"),
    (SVD, PartChoice("motion_module"), "no motion modules are in this network"),
]


@pytest.mark.parametrize("family, choice, words", LACKING)
def test_a_part_that_the_family_lacks(family, choice, words):
    network = published(family)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        whole_names(choice.name, network.state_dict())
        lora_modules(choice, dict(network.named_modules()))
    assert f"part is {choice.name!r}" in str(error.value)


def test_a_dialect_that_nobody_reads_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="ComfyUI reads no PEFT file for SD1.5 and SDXL"):
        lora_modules(PartChoice("lora", dialect="PEFT"), picture_unet())
    assert lora_modules(PartChoice("domain_adapter", dialect="PEFT"), picture_unet())
