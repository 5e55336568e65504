"""Updates of trainings at published sizes on the card: what they hold beside what was foreseen, and how long they take.

bf16 weights, what is trained in fp32, every block computed anew, one AdamW step behind each backward pass; random weights
and inputs of zeros. Peers are diffusers' networks with PEFT's LoRA of the same layers and their own checkpointing.
"""

import importlib
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers, training_memory
from ..training_memory import HALF, JOBS, Job
from . import measure, networks
from .report import Report

ROUNDS = 3
SPREAD = 0.02
TINY = (128, 128, 5)


def run(report: Report, family: str, part: str) -> None:
    """Every job of a family whose variant or part is `part`, one after the other; one that fails stops no other."""
    for name, job in JOBS.items():
        if job.family == family and part in (job.part, job.variant):
            with report.guarded(name):
                _measure(report, name, name, partial(_own, job, report.tiny))


def beside_peers(report: Report) -> None:
    """The jobs that a peer can do, by ours and by it in turn."""
    for name, peer in PEERS.items():
        job = JOBS[name]
        for who, make in (("ours", partial(_own, job, report.tiny)), ("diffusers, PEFT", partial(peer, job))):
            if who == "ours" or not report.tiny:
                with report.guarded(f"{name}, {who}"):
                    _measure(report, f"{name}, {who}", name, make)


@dataclass(frozen=True)
class Course:
    """What is trained, and its loss."""

    network: nn.Module
    trained: Mapping[str, nn.Parameter]
    loss: Callable[[], Tensor]


def _measure(report: Report, title: str, name: str, make: Callable[[], Course]) -> None:
    """A row of a job: GiB in all, as the allocator counts and as it reserves, seconds of an update, numbers trained."""
    before = _allocated()
    with report.beside_others(), torch.device(measure.device()):
        course = make()
    steps = importlib.import_module(f"{ours.PACK}.modules.training.recipe").Steps()
    optimizers = importlib.import_module(f"{ours.PACK}.modules.training.optimizers")
    update = partial(_update, course, optimizers.build(course.trained, steps))
    with report.alone():
        # the optimizer's state comes to be
        update()
        _start_peak()
        samples = [round(measure.seconds(update), 4) for _ in range(ROUNDS)]
        report.add(
            title,
            foreseen_gib=foreseen(name),
            **_peaks(before),
            seconds=statistics.median(samples),
            samples=samples,
            trained=sum(p.numel() for p in course.trained.values()),
            finite=all(bool(p.isfinite().all()) for p in course.trained.values()),
        )
    del course, update
    if measure.device() == "cuda":
        torch.cuda.empty_cache()


def foreseen(name: str) -> float:
    """GiB of a job as counted on fake tensors."""
    return json.loads(training_memory.RESULTS.read_text(encoding="utf-8"))[name]["total"]


def _update(course: Course, optimizer: torch.optim.Optimizer) -> None:
    course.loss().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _allocated() -> int:
    return torch.cuda.memory_allocated() if measure.device() == "cuda" else 0


def _start_peak() -> None:
    if measure.device() == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peaks(before: int) -> dict[str, float]:
    if measure.device() == "cpu":
        return {}
    most, reserved = torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved()
    return {"total_gib": round(most / measure.GIB, 3), "reserved_gib": round(reserved / measure.GIB, 3)}


def _own(job: Job, tiny: bool) -> Course:
    """Our network, as the trainer has it."""
    if tiny:
        job = replace(job, size=TINY)
    built = training_memory.build(job, small=tiny)
    ours.draw(built.network.to(measure.device()), SPREAD)
    for table in built.network.buffers():
        table.zero_()
    training_memory.checkpoint(built)
    for parameter in built.trained.values():
        parameter.requires_grad_(True)
    return Course(built.network, built.trained, built.loss)


def _lora(network: nn.Module, layers: str, job: Job) -> dict[str, nn.Parameter]:
    """PEFT's LoRA in fp32 on the layers whose names fit, its halves by name."""
    peft = importlib.import_module("peft")
    network.requires_grad_(False)
    config = peft.LoraConfig(r=job.rank, lora_alpha=job.rank, target_modules=layers)
    peft.inject_adapter_in_model(config, network)
    halves = {name: p for name, p in network.named_parameters() if ".lora_" in name}
    for half in halves.values():
        half.data = half.data.float()
        nn.init.normal_(half, std=SPREAD)
    network.train()
    network.enable_gradient_checkpointing()  # type: ignore[operator]
    return halves


def _peer(
    make: Callable[[], nn.Module], layers: str, job: Job, call: Callable[[nn.Module], Tensor]
) -> Course:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(HALF)
    try:
        network = make()
    finally:
        torch.set_default_dtype(usual)
    halves = _lora(network, layers, job)

    def loss() -> Tensor:
        with torch.autocast(measure.device(), HALF):
            return call(network).float().square().mean()

    return Course(network, halves, loss)


def _cogvideox(job: Job) -> Course:
    clip = networks.RELEASES[job.variant]
    rotary, heads, layers = clip.config.rotary, clip.config.num_heads, clip.config.num_layers
    make = partial(
        peers.load_diffusers().CogVideoXTransformer3DModel,
        num_attention_heads=heads,
        num_layers=layers,
        use_rotary_positional_embeddings=rotary,
    )
    x, timestep, text, tables = networks.inputs(clip, 1)

    def call(network: nn.Module) -> Tensor:
        return network(x.transpose(1, 2), text, timestep, image_rotary_emb=tables, return_dict=False)[0]

    return _peer(make, r".*transformer_blocks\.\d+\.attn1\.to_(q|k|v|out\.0)", job, call)


def _svd(job: Job) -> Course:
    width, height, frames = job.size
    make = peers.load_diffusers().UNetSpatioTemporalConditionModel
    x = torch.zeros(1, frames, 8, height // 8, width // 8, dtype=HALF)
    text, numbers = torch.zeros(1, 1, 1024, dtype=HALF), torch.tensor([[6.0, 127.0, 0.0]])

    def call(network: nn.Module) -> Tensor:
        return network(x, torch.ones(1), text, numbers, return_dict=False)[0]

    return _peer(make, r".*temporal_transformer_blocks\.\d+\.attn\d\.to_(q|k|v|out\.0)", job, call)


PEERS: Mapping[str, Callable[[Job], Any]] = {
    "SVD LoRA r64 over time, 1024x576, 14 frames": _svd,
    "CogVideoX 2B LoRA r64 attention, 720x480, 49 frames": _cogvideox,
    "CogVideoX 5B LoRA r64 attention, 720x480, 49 frames": _cogvideox,
}
