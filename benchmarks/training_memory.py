"""`python tools/pack.py kinetograph.benchmarks.training_memory [JOB ...]`: what trainings hold, to results/training-memory.json.

Counted on fake tensors at published sizes, by the code that predicts it to users (`modules/training/memory.py`): bf16
weights, what is trained in fp32, every block computed anew. The spec's own figures stand beside each.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..modules.layers import slabs
from . import ours, peers
from .gpu.slabs import changed

RESULTS = Path(__file__).resolve().parent / "results" / "training-memory.json"
HALF = torch.bfloat16
TEXT_TOKENS, TEXT_WIDTH = 77, 768
# of ComfyUI's UNet for SD1.5, as its detection tells it
SD15: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "use_spatial_transformer": True,
    "context_dim": TEXT_WIDTH,
    "legacy": False,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "use_linear_in_transformer": False,
}

# in place of the published sizes, where only the way is tried
SMALL: dict[str, Any] = {"num_layers": 2, "channels": (64, 64, 64, 64)}


@dataclass(frozen=True)
class Job:
    """One training of a published network."""

    family: str
    variant: str
    # of modules/training/recipe.py
    part: str
    # width and height in pixels, frames
    size: tuple[int, int, int]
    # GiB in all, in the specification (section 11)
    spec: float
    rank: int = 64
    layers: str = "attention"
    count: int = 1


JOBS: Mapping[str, Job] = {
    "MotionLoRA r64 v2, 256x256, 16 frames": Job("animatediff", "v2", "motion_lora", (256, 256, 16), 3.7),
    "MotionLoRA r64 v2, 512x512, 16 frames": Job("animatediff", "v2", "motion_lora", (512, 512, 16), 7.0),
    "AnimateDiff module v2, 256x256, 16 frames": Job(
        "animatediff", "v2", "motion_module", (256, 256, 16), 8.9
    ),
    "AnimateDiff module v2, 256x256, 16 frames, 4 clips": Job(
        "animatediff", "v2", "motion_module", (256, 256, 16), 11.1, count=4
    ),
    "SVD LoRA r64 over time, 512x320, 14 frames": Job(
        "svd", "UNet", "lora", (512, 320, 14), 5.0, layers="temporal"
    ),
    "SVD LoRA r64 over time, 1024x576, 14 frames": Job(
        "svd", "UNet", "lora", (1024, 576, 14), 10.3, layers="temporal"
    ),
    "SVD LoRA r64 over time, 1024x576, 25 frames": Job(
        "svd", "UNet", "lora", (1024, 576, 25), 16.1, layers="temporal"
    ),
    "CogVideoX 2B LoRA r64 attention, 720x480, 49 frames": Job(
        "cogvideox", "2B", "lora", (720, 480, 49), 7.1
    ),
    "CogVideoX 2B LoRA r128 all, 720x480, 49 frames": Job(
        "cogvideox", "2B", "lora", (720, 480, 49), 9.8, 128, "all"
    ),
    "CogVideoX 5B LoRA r64 attention, 720x480, 49 frames": Job(
        "cogvideox", "5B", "lora", (720, 480, 49), 17.7
    ),
    "CogVideoX 5B LoRA r128 all, 720x480, 49 frames": Job(
        "cogvideox", "5B", "lora", (720, 480, 49), 23.4, 128, "all"
    ),
    "Fun 5B LoRA r128 all, 256x256, 49 frames": Job(
        "cogvideox", "Fun-5B-InP", "lora", (256, 256, 49), 18.5, 128, "all"
    ),
    "Fun 5B LoRA r128 all, 512x512, 49 frames": Job(
        "cogvideox", "Fun-5B-InP", "lora", (512, 512, 49), 21.7, 128, "all"
    ),
    "EasyAnimate module, 512x512, 16 frames": Job("pixart", "512", "motion_module", (512, 512, 16), 14.8),
    "EasyAnimate module, 512x512, 16 frames, 2 clips": Job(
        "pixart", "512", "motion_module", (512, 512, 16), 16.3, count=2
    ),
    "EasyAnimate module, 512x512, 80 frames": Job("pixart", "512", "motion_module", (512, 512, 80), 22.7),
    "ExVideo, 256x256, 128 frames": Job("svd", "UNet", "exvideo", (256, 256, 128), 19.4),
    "ExVideo, 512x512, 128 frames": Job("svd", "UNet", "exvideo", (512, 512, 128), 43.2),
}


@dataclass(frozen=True)
class Built:
    """A network with what is trained of it, and a call of it."""

    network: nn.Module
    blocks: list[nn.Module]
    # in fp32
    trained: Mapping[str, nn.Parameter]
    forward: Callable[[], Tensor]

    def loss(self) -> Tensor:
        """Some loss: memory and time do not depend on which."""
        return self.forward().float().square().mean()


def build(job: Job, small: bool = False) -> Built:
    """The network of a job on PyTorch's default device, its values not set; `small`: the same of a few narrow blocks."""
    network, blocks, forward = _motion(job, small) if job.family == "animatediff" else _of_family(job, small)
    trained = _trained(network, _training("recipe").PartChoice(job.part, job.rank, layers=job.layers))
    return Built(network, blocks, trained, forward)


def predicted(job: Job, checkpointing: bool = True) -> Any:
    """What `modules/training/memory.py` says of a job on a card."""
    with FakeTensorMode():
        built = build(job)
    if checkpointing:
        checkpoint(built)
    # fake tensors lie on a CPU here, which works on less at once
    usual = slabs.TRAINING
    with changed(slabs, "TRAINING", replace(usual, cpu=usual.accelerator)):
        return _training("memory").predict(
            built.network, built.trained, built.loss, _training("recipe").Steps()
        )


def checkpoint(built: Built) -> None:
    """Have the blocks computed anew in the backward pass."""
    _training("checkpointing").checkpoint_blocks(built.blocks)


def _training(name: str) -> Any:
    return importlib.import_module(f"{ours.PACK}.modules.training.{name}")


def _of_family(job: Job, small: bool) -> tuple[nn.Module, list[nn.Module], Callable[[], Tensor]]:
    families = importlib.import_module(f"{ours.PACK}.modules.families")
    clip = importlib.import_module(f"{ours.PACK}.modules.families.family").Clip
    operations = _training("operations").EmptyCastOperations
    family = next(known for known in families.FAMILIES if known.id == job.family)
    part = family.parts["diffusion_model"]
    config = next((c for c in part.published if part.variant(c) == job.variant), None)
    config = config or ours.config(job.family, "diffusion_model")
    if small:
        config = replace(config, **{key: value for key, value in SMALL.items() if hasattr(config, key)})
    network = part.build(config, ops=operations, dtype=HALF).requires_grad_(False)
    inputs = {
        name: value.to(torch.get_default_device(), HALF if value.is_floating_point() else None)
        if torch.is_tensor(value)
        else value
        for name, value in family.network.inputs(config, clip(*job.size, job.count)).items()
    }
    if job.part == "exvideo":
        exvideo = importlib.import_module(f"{ours.PACK}.modules.families.svd.exvideo")
        exvideo.ExVideoBranches(config, operations).put_into(network)
    if job.part == "motion_module":
        grid = importlib.import_module(f"{ours.PACK}.modules.families.easyanimate.config").GridConfig
        modules = families.GRID_MODULES.part.build(grid(config.num_layers, config.width), operations)
        modules.put_into(network)
        inputs["num_video_frames"] = job.size[2]
    blocks = getattr(network, "transformer_blocks", None) or network.numbered_layers()  # type: ignore[operator]
    return network, list(blocks), partial(network, **inputs)


def _motion(job: Job, small: bool) -> tuple[nn.Module, list[nn.Module], Callable[[], Tensor]]:
    """ComfyUI's UNet with motion modules, as the trainer has them."""
    unet = peers.load_host("comfy.ldm.modules.diffusionmodules.openaimodel").UNetModel
    layers = peers.load_host("comfy.ops").disable_weight_init
    # its choice on a GPU
    attention = peers.load_host("comfy.ldm.modules.attention")
    attention.optimized_attention = attention.attention_pytorch
    host = importlib.import_module(f"{ours.PACK}.nodes.host.training")
    part = ours.part("animatediff", "motion_module")
    config = next(known for known in part.published if part.variant(known) == job.variant)
    backend = importlib.import_module(f"{ours.PACK}.nodes.host.backend")
    sizes = SD15
    if small:
        sizes, config = {**SD15, "model_channels": 32}, replace(config, channels=(32, 64, 128, 128))
    motion = part.build(config, _training("operations").EmptyCastOperations, backend.attend_short, HALF)
    base = unet(**sizes, dtype=HALF, operations=layers, device=torch.get_default_device())
    network = host.PictureNetwork(base, motion).requires_grad_(False)
    width, height, frames = job.size
    x = torch.zeros(job.count * frames, 4, height // 8, width // 8, dtype=HALF)
    text = torch.zeros(len(x), TEXT_TOKENS, TEXT_WIDTH, dtype=HALF)
    forward = partial(network, x, torch.zeros(len(x)), text, frames)
    return network, list(host.unet_blocks(network)), forward


def _trained(network: nn.Module, choice: Any) -> dict[str, nn.Parameter]:
    """What a part trains of a network, in fp32."""
    parts = _training("parts")
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    layers = parts.lora_modules(choice, modules)
    if layers:
        low = _training("low_rank").LowRank(
            {name: modules[name] for name in layers}, choice.rank, choice.alpha
        )
        low.attach()
        return low.parameters()
    trained = {}
    for name in parts.whole_names(choice.name, parameters):
        place, _, last = name.rpartition(".")
        trained[name] = nn.Parameter(parameters[name].detach().float())
        setattr(modules[place], last, trained[name])
    return trained


def row(job: Job) -> dict[str, float]:
    """GiB of a job by kind, and in all: with AdamW and with 8-bit AdamW."""
    memory = _training("memory")
    counted = predicted(job)
    figures = {name: value / memory.GIB for name, value in asdict(counted).items() if name != "average"}
    small = replace(counted, optimizer=counted.optimizer // 4)
    figures |= {"total": counted.total / memory.GIB, "total_8bit": small.total / memory.GIB, "spec": job.spec}
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> int:
    chosen = sys.argv[1:] or list(JOBS)
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in chosen:
        rows[name] = row(JOBS[name])
        print(name, rows[name], flush=True)
        RESULTS.write_text(json.dumps({key: rows[key] for key in JOBS if key in rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
