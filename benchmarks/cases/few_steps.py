"""What models distilled to few steps save: passes of the network and time, beside 25 steps with guidance.

Everything goes through Video Sampler on the host, over networks of the four kinds at a small width, each with the
settings that it was published with. The two clips are not one picture, for the weights of a distilled model are others:
what is compared is the work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import MIN_ROUNDS, OURS, Row, Setting, time_rows

LONG = "25 steps"
SPREAD = 0.03  # of the weights
CONTEXT = 64
FRAMES, CELLS = 4, 16
PICTURES, VIDEO = (FRAMES, 4, CELLS, CELLS), (1, 16, 3, CELLS, CELLS)
CHANNELS = (32, 64, 128, 128)
# ComfyUI's words for SD1.5
PICTURE_UNET = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": CHANNELS[0], "legacy": False},
    **{"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2},
    **{"transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": CONTEXT},
    **{"num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True, "dtype": torch.float32},
    **{"use_temporal_attention": False, "use_temporal_resblock": False, "use_linear_in_transformer": False},
}


@dataclass(frozen=True)
class Way:
    """The widgets of Video Sampler that matter here."""

    steps: int
    guidance: dict[str, Any]
    sampler_name: str
    scheduler: str


@dataclass(frozen=True)
class Model:
    """A network with what it takes, and the ways to sample it."""

    build: Callable[[], Any]
    latents: tuple[int, ...]
    prompts: Callable[[], dict[str, Any]]
    few: Way
    long: Way


def constant(cfg: float) -> dict[str, Any]:
    return {"guidance": "constant", "cfg": cfg}


def ramp(low: float, high: float) -> dict[str, Any]:
    return {"guidance": "per-frame linear", "min_cfg": low, "max_cfg": high}


def counts(setting: Setting) -> Iterator[Row]:
    """Passes of a clip through the network: with guidance, two a step."""
    for name, model in models().items():
        loaded = model.build()
        passes = {
            key: [float(passes_of(loaded, model, way))]
            for key, way in ((OURS, model.few), (LONG, model.long))
        }
        yield Row(name, "network passes", passes)


def times(setting: Setting) -> Iterator[Row]:
    """Seconds a clip, with all that the sampler and the host do."""
    for name, model in models().items():
        loaded = model.build()
        works = {
            OURS: partial(sample, loaded, model, model.few),
            LONG: partial(sample, loaded, model, model.long),
        }
        yield from time_rows(name, works, replace(setting, max_rounds=MIN_ROUNDS))


def models() -> dict[str, Model]:
    """The few-step models by name, with what they were distilled from."""
    peers.load_host("nodes")
    pictured, told = partial(words, 77, CONTEXT), partial(words, 226, CONTEXT)
    guided = Way(25, constant(7.5), "euler", "trailing")
    return {
        "SVD, AnimateLCM": Model(
            svd,
            PICTURES,
            picture,
            Way(4, ramp(1.0, 1.2), "lcm", "animatelcm_svd"),
            Way(25, ramp(1.0, 3.0), "euler", "edm"),
        ),
        "SD1.5, AnimateLCM": Model(
            partial(animatediff, "AnimateLCM"),
            PICTURES,
            pictured,
            Way(4, constant(1.5), "lcm", "lcm_100"),
            guided,
        ),
        "SD1.5, Lightning": Model(
            partial(animatediff, "v2"), PICTURES, pictured, Way(4, constant(1.0), "euler", "trailing"), guided
        ),
        "CogVideoX 2B, TDM": Model(
            cogvideox_2b,
            VIDEO,
            told,
            Way(4, constant(1.0), "cogvideox_ddim", "tdm"),
            Way(25, constant(6.0), "cogvideox_ddim", "trailing"),
        ),
    }


def sample(loaded: Any, model: Model, way: Way) -> Tensor:
    """Latents of Video Sampler."""
    from ...nodes.sampling import VideoSampler

    latent = {"samples": torch.zeros(model.latents)} | (
        {"num_frames": FRAMES} if model.latents[0] > 1 else {}
    )
    chosen = {"seed": 0, "steps": way.steps, "guidance": way.guidance, "sampler_name": way.sampler_name}
    chosen |= {"scheduler": way.scheduler, "denoise": 1.0, "preview": False, **model.prompts()}
    with torch.inference_mode():
        return VideoSampler.execute(model=loaded, latent=latent, **chosen).args[0]["samples"]


def passes_of(loaded: Any, model: Model, way: Way) -> int:
    """How many clips the network is given in a run, counted at its door."""
    rows: list[int] = []
    network = loaded.model.diffusion_model
    hook = network.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    try:
        done = sample(loaded, model, way)
    finally:
        hook.remove()
    if not bool(done.isfinite().all()):
        raise AssertionError("The clip is not finite.")
    return sum(rows) // model.latents[0]


def words(tokens: int, width: int) -> dict[str, Any]:
    """Two CONDITIONINGs of a prompt."""
    drawn = (ours.noise(seed, torch.float32, "cpu", 1, tokens, width) for seed in (1, 2))
    return {name: [[value, {}]] for name, value in zip(("positive", "negative"), drawn, strict=True)}


def picture() -> dict[str, Any]:
    """Two CONDITIONINGs of a picture, as SVD takes them."""
    image = {"concat_latent_image": ours.noise(3, torch.float32, "cpu", 1, 4, CELLS, CELLS)}
    return {name: [[value[0][0], dict(image)]] for name, value in words(1, CONTEXT).items()}


def fill(network: nn.Module, dtype: torch.dtype) -> None:
    """Random weights for a network without any."""
    blank = {key: torch.zeros(value.shape, dtype=dtype) for key, value in network.state_dict().items()}
    network.load_state_dict(blank, assign=True)
    ours.draw(network, SPREAD)
    network.requires_grad_(False)


def family_model(family: str, **sizes: Any) -> Any:
    """A MODEL of one of our families at these sizes."""
    from ...modules import families
    from ...nodes.host import diffusion

    record = next(known for known in families.FAMILIES if known.id == family)
    recipe = diffusion.ModelRecipe(
        family=record,
        part=record.parts["diffusion_model"],
        config=ours.config(family, "diffusion_model", **sizes),
        fill=fill,
        weight_dtype=torch.float32,
        parameters=1,
        dtype=torch.float32,
    )
    return diffusion.load_model(recipe)


def svd() -> Any:
    """A narrow SVD."""
    return family_model("svd", channels=CHANNELS, head_dim=32, context_dim=CONTEXT)


def cogvideox_2b() -> Any:
    """Two narrow blocks of CogVideoX 2B."""
    return family_model("cogvideox", num_heads=8, num_layers=2, text_dim=CONTEXT, rotary=False, snr_shift=3.0)


def animatediff(version: str) -> Any:
    """A narrow SD1.5 of the host with the motion modules of a release."""
    from ...modules.families.animatediff import MODULES
    from ...nodes.host import backend, diffusion, injection

    config = ours.config(
        "animatediff", "motion_module", channels=CHANNELS, mid=True, version=version, rows=32
    )
    unet = peers.load_host("comfy.supported_models").SD15(PICTURE_UNET).get_model({}, device="cpu")
    ours.draw(unet.diffusion_model, SPREAD)
    cpu = torch.device("cpu")
    host = peers.load_host("comfy.model_patcher").ModelPatcher(unet, load_device=cpu, offload_device=cpu)
    motion = injection.Motion(
        add_on=MODULES,
        config=config,
        fill=fill,
        check=backend.unchecked,
        weight_dtype=torch.float32,
        strength=1.0,
        joint_base_norms=config.joint_base_norms,
    )
    moving = injection.add_motion(host, motion)
    moving.add_object_patch("model_sampling", diffusion.sampling_of(config.noise))
    return moving
