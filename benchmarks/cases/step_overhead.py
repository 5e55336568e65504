"""What a step costs beside the model: VideoSampler and the host's KSampler over a network that computes nothing.

The time of a long run less that of a short one, by step, so that setting up a run does not count; the
network's own time is taken off. Latents are small: at full size the sampler's arithmetic on a CPU is not
overhead but bandwidth, and is shown apart, in the full suite.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting

HOST, DDIM = "host KSampler", "ours, cogvideox_ddim"
SHORT, LONG, ROUNDS = 10, 110, 7
SIZES = {"17 frames 64x64": (1, 16, 5, 8, 8), "49 frames 480x720": (1, 16, 13, 60, 90)}
Sampler = Callable[[Tensor, int], Tensor]  # (latents, steps) -> samples


class FreeNetwork(nn.Module):
    """Answers with its input."""

    def __init__(self, config: Any, ops: Any, dtype: torch.dtype, device: Any, **_: Any):
        super().__init__()
        self.dtype = dtype
        self.anchor = nn.Parameter(torch.zeros(1, dtype=dtype), requires_grad=False)

    def forward(self, x: Tensor, timestep: Tensor, context: Any, transformer_options: Any = None) -> Tensor:
        return x


def times(setting: Setting) -> Iterator[Row]:
    """Milliseconds a step, with guidance, no preview: Euler's method, and our own DDIM beside the host's Euler."""
    logging.disable(logging.WARNING)
    nodes = peers.load_host("nodes", setting.device)
    model = free_model()
    samplers = {
        OURS: video_sampler(model, "euler"),
        DDIM: video_sampler(model, "cogvideox_ddim"),
        HOST: ksampler(nodes, model),
    }
    for name, shape in list(SIZES.items())[: None if setting.full else 1]:
        empty = torch.zeros(shape)
        with torch.inference_mode():
            same = torch.equal(samplers[OURS](empty, 5), samplers[HOST](empty, 5))
            if not same:
                raise AssertionError("VideoSampler and KSampler differ.")
            small = name == next(iter(SIZES))
            samples = per_step(samplers, empty, *((SHORT, LONG) if small else (2, 12)))
        metric = "ms a step" if small else "ms a step, bandwidth"
        for label, own in ((name, OURS), (f"{name}, cogvideox_ddim", DDIM)):
            figures = {OURS: samples[own], HOST: samples[HOST]}
            yield Row(label, metric, figures, parity={HOST: 0.0}, threads=setting.threads)


def free_model() -> Any:
    """A MODEL of CogVideoX 5B's kind whose network is free."""
    from ...modules.families import COGVIDEOX
    from ...nodes.host import diffusion

    config = ours.config("cogvideox", "diffusion_model", text_dim=16)
    recipe = diffusion.ModelRecipe(
        family=COGVIDEOX,
        part=dataclasses.replace(COGVIDEOX.parts["diffusion_model"], build=FreeNetwork),
        config=config,
        fill=lambda network, dtype: None,
        weight_dtype=torch.float32,
        parameters=1,
        dtype=torch.float32,
    )
    return diffusion.load_model(recipe)


def prompts() -> dict[str, Any]:
    """Two CONDITIONINGs."""
    return {name: [[torch.zeros(1, 226, 16), {}]] for name in ("positive", "negative")}


def video_sampler(model: Any, sampler_name: str) -> Sampler:
    """VideoSampler on a model."""
    from ...nodes.sampling import VideoSampler

    fixed = {"model": model, "seed": 0, "sampler_name": sampler_name, "scheduler": "simple", "denoise": 1.0}
    fixed |= {"guidance": {"guidance": "constant", "cfg": 6.0}, "preview": False, **prompts()}
    return lambda latents, steps: VideoSampler.execute(
        latent={"samples": latents}, steps=steps, **fixed
    ).args[0]["samples"]


def ksampler(nodes: Any, model: Any) -> Sampler:
    """The host's KSampler on a model."""
    fixed = {
        "model": model,
        "seed": 0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "cfg": 6.0,
        **prompts(),
    }
    node = nodes.KSampler()
    return lambda latents, steps: node.sample(latent_image={"samples": latents}, steps=steps, **fixed)[0][
        "samples"
    ]


def per_step(samplers: dict[str, Sampler], latents: Tensor, short: int, long: int) -> dict[str, list[float]]:
    """CPU milliseconds a step by sampler, one sample a round, the order flipped each round."""
    own = network_ms(latents)
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for done in range(ROUNDS):
        for name in list(samplers)[:: 1 if done % 2 else -1]:
            spent = [cpu_ms(lambda: samplers[name](latents, steps)) for steps in (short, long)]  # noqa: B023
            samples[name].append((spent[1] - spent[0]) / (long - short) - own)
    return samples


def cpu_ms(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1000


def network_ms(latents: Tensor, calls: int = 1000) -> float:
    """One raw forward of the free network."""
    network = FreeNetwork(None, None, torch.float32, None)
    timestep = torch.zeros(len(latents))
    return cpu_ms(lambda: [network(latents, timestep, None) for _ in range(calls)]) / calls
