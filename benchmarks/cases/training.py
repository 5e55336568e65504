"""Our training loop around our networks, and around diffusers' with PEFT's LoRA: steps and peak memory.

Same weights, same clips, same noise, same loop: what differs is the network and how its LoRA is put in. Each curve of 20
losses is held against ours before anything is timed. Memory is counted on fake tensors with either's own checkpointing.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting, time_rows
from .cog_dit import real_tables

GIB = 2**30
# of losses, relative; float32
TOLERANCE = 1e-5
STEPS, RANK, LR = 20, 8, 1e-4
SPREAD = 0.05
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
PEER = "diffusers, peft"


@dataclass(frozen=True)
class Size:
    """A family's network, small but not tiny, and a clip for it."""

    family: str
    config: Mapping[str, Any]
    # latent cells
    frames: int
    height: int
    width: int


SIZES = {
    "svd": Size("svd", {"channels": (64, 128, 256, 256)}, 8, 16, 24),
    "cogvideox": Size("cogvideox", {"num_layers": 4, "num_heads": 8, "rotary": True}, 5, 16, 24),
}
MEMORY = {
    "svd": Size("svd", {"channels": (64, 128, 256, 256)}, 14, 40, 64),
    "cogvideox": Size("cogvideox", {"num_layers": 4, "num_heads": 8, "rotary": True}, 13, 30, 44),
}


class Clips(list):
    """Examples in memory."""

    empty = None


def times(setting: Setting) -> Iterator[Row]:
    """A step, without checkpointing and with it."""
    for name, size in SIZES.items():
        for anew in (False, True):
            with torch.inference_mode(False), torch.enable_grad():
                trainings, absent = build(size, setting, anew)
                parity = compare(trainings)
            works = {peer: partial(step, training) for peer, training in trainings.items()}
            title = f"{name}, {size.frames} frames, {size.height}x{size.width} cells"
            yield from time_rows(title + (", checkpointing" if anew else ""), works, setting, parity, absent)


def counts(setting: Setting) -> Iterator[Row]:
    """Bytes alive at the peak beyond weights, gradients with them, with checkpointing."""
    memory = _module("memory")
    for name, size in MEMORY.items():
        # random numbers of the loop have values, so has the clip
        trainings, absent = build(size, setting, True)
        samples = {
            peer: [memory.of_training(training, [training.examples[0]]).peak / GIB]
            for peer, training in trainings.items()
        }
        title = f"{name}, {size.frames} frames, {size.height}x{size.width} cells, checkpointing"
        yield Row(title, "peak GiB", samples, absent=absent)


def step(training: Any) -> None:
    """One update, outside of the inference mode that cases are timed in."""
    with torch.inference_mode(False), torch.enable_grad():
        training.step()


def compare(trainings: Mapping[str, Any]) -> dict[str, float]:
    """The largest relative difference of a loss to ours over the first steps; AssertionError above the tolerance."""
    curves = {name: [training.step().loss for _ in range(STEPS)] for name, training in trainings.items()}
    own = curves.pop(OURS)
    errors = {
        name: max(abs(a - b) / abs(a) for a, b in zip(own, curve, strict=True))
        for name, curve in curves.items()
    }
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise AssertionError(f"The losses of {name} differ from ours by {error:.1e}.")
    return errors


def build(size: Size, setting: Setting, checkpointing: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Trainings of the same weights, and the peers that are absent."""
    subject = _subject(size)
    modules = dict(subject.network.named_modules())
    layers = {name: modules[name] for name in modules if name.endswith(PROJECTIONS)}
    low = _module("low_rank").LowRank(layers, RANK, RANK)
    for number, (_, up) in enumerate(low.halves.values()):
        nn.init.normal_(up, std=SPREAD, generator=torch.Generator().manual_seed(number))
    start = {name: half.detach().clone() for name, half in low.parameters().items()}
    weights = {key: value.clone() for key, value in subject.network.state_dict().items()}
    low.attach()
    if checkpointing:
        _module("checkpointing").checkpoint_blocks(subject.blocks)
    trainings = {OURS: _training(subject, low.parameters(), size)}
    made, absent = peers.build_present({PEER: _peer}, setting, size, subject, weights, start, checkpointing)
    return {**trainings, **made}, absent


def _peer(size: Size, subject: Any, weights: dict, start: dict, checkpointing: bool) -> Any:
    """A training of diffusers' network with PEFT's LoRA, which starts from our halves."""
    make, rename = {"svd": (_svd, _svd_names), "cogvideox": (_cogvideox, lambda names: names)}[size.family]
    network, predict = make(size, subject.network, weights)
    peers.hide_broken_extensions()
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(PROJECTIONS))
    network = peft.inject_adapter_in_model(config, network)
    halves = {name: p for name, p in network.named_parameters() if ".lora_" in name}
    renamed = rename({name.rpartition(".")[0]: name.rpartition(".")[0] for name in start})
    for name, value in start.items():
        layer, _, kind = name.rpartition(".")
        letter = {"lora_down": "lora_A", "lora_up": "lora_B"}[kind]
        halves[f"{renamed[layer]}.{letter}.default.weight"].data.copy_(value)
    if checkpointing:
        network.train()
        network.enable_gradient_checkpointing()
    peer = replace(subject, network=network, predict=predict, blocks=())
    return _training(peer, halves, size)


def _svd(size: Size, own: nn.Module, weights: dict) -> tuple[nn.Module, Callable[..., Tensor]]:
    config = own.config
    keys = importlib.import_module(f"{ours.PACK}.modules.families.svd.keys")
    renames = keys.DIFFUSERS.reverse().rename(weights)
    made = peers.load_diffusers().UNetSpatioTemporalConditionModel
    build_ = partial(
        made,
        block_out_channels=config.channels,
        num_attention_heads=tuple(width // config.head_dim for width in config.channels),
    )
    peer = peers.place(build_, {renames[key]: value for key, value in weights.items()}, torch.float32, "cpu")
    for name, module in peer.named_modules():
        if "_res_block" in name and isinstance(module, nn.GroupNorm):
            # of the original
            module.eps = 1e-5
    # it embeds the three numbers by itself: those of `conditions`, as none were asked for
    numbers = torch.tensor([[6.0, 127.0, 0.0]])

    def predict(x: Tensor, timestep: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        x = torch.cat([x, arguments["concat"].to(x)], dim=1)
        return peer(x[None], timestep[:1], arguments["context"][:1], numbers, return_dict=False)[0][0]

    return peer, predict


def _svd_names(names: Mapping[str, str]) -> dict[str, str]:
    keys = importlib.import_module(f"{ours.PACK}.modules.families.svd.keys")
    renames = keys.DIFFUSERS.reverse().rename([f"{name}.weight" for name in names])
    return {name: str(renames[f"{name}.weight"]).removesuffix(".weight") for name in names}


def _cogvideox(size: Size, own: nn.Module, weights: dict) -> tuple[nn.Module, Callable[..., Tensor]]:
    config = own.config
    build_ = partial(
        peers.load_diffusers().CogVideoXTransformer3DModel,
        num_attention_heads=config.num_heads,
        num_layers=config.num_layers,
        use_rotary_positional_embeddings=True,
    )
    peer = peers.place(build_, weights, torch.float32, "cpu")
    tables = real_tables(own._rotary((size.frames, size.height // 2, size.width // 2), torch.device("cpu")))

    def predict(x: Tensor, timestep: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        v = peer(
            x.transpose(1, 2), arguments["context"], timestep, image_rotary_emb=tables, return_dict=False
        )
        return v[0].transpose(1, 2)

    return peer, predict


def _subject(size: Size) -> Any:
    """A network of ours with random weights, as the trainer sees it."""
    families = importlib.import_module(f"{ours.PACK}.modules.families")
    family = next(known for known in families.FAMILIES if known.id == size.family)
    config = ours.config(size.family, "diffusion_model", **size.config)
    network = ours.network(size.family, "diffusion_model", config, torch.float32, "cpu")
    ours.draw(network, None if size.family == "cogvideox" else 0.03)
    records = family.network

    blocks = getattr(network, "transformer_blocks", None) or network.numbered_layers()  # type: ignore[operator]
    return _module("subject").Subject(
        family.id,
        family.label,
        network,
        records.noise(config),
        records.latents(config).scale,
        records.grid.frames_on_batch,
        partial(records.conditions, config),
        partial(_module("subject").ask, network),
        blocks=tuple(blocks),
    )


def _training(subject: Any, trained: Mapping[str, nn.Parameter], size: Size) -> Any:
    recipe = _module("recipe")
    steps = recipe.Steps(lr=LR, total=10**6, seed=3)
    told = recipe.Recipe(
        "benchmark", recipe.Files(""), recipe.PartChoice("lora", RANK, RANK), recipe.Data(""), steps=steps
    )
    return _module("loop").Training(subject, trained, _clips(size), told)


def _clips(size: Size) -> Clips:
    example = _module("subject").Example
    shape = (size.height, size.width)
    if size.family == "svd":
        mean, image = ours.noise(1, torch.float32, "cpu", size.frames, 4, *shape), None
        image = ours.noise(2, torch.float32, "cpu", 1, 4, *shape)
        return Clips([example(0, mean, context=ours.noise(3, torch.float32, "cpu", 1, 1024), image=image)])
    mean = ours.noise(1, torch.float32, "cpu", 16, size.frames, *shape)
    return Clips([example(0, mean, context=ours.noise(3, torch.float32, "cpu", 226, 4096))])


def _module(name: str) -> Any:
    return importlib.import_module(f"{ours.PACK}.modules.training.{name}")
