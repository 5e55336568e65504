"""A MODEL as a training sees it: its network once more, plain and frozen, and what is trained of it or put into it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...modules.families import ANIMATEDIFF, GRID_MODULES, SVD
from ...modules.families.animatediff import MODULES
from ...modules.families.animatediff.config import MotionConfig
from ...modules.families.easyanimate.config import GridConfig
from ...modules.families.family import AddOn, Request
from ...modules.families.svd import EXVIDEO
from ...modules.families.svd.exvideo import ExVideoBranches
from ...modules.noise import Noise
from ...modules.training import draws, parts
from ...modules.training.operations import CastOperations, EmptyCastOperations
from ...modules.training.recipe import Recipe
from ...modules.training.subject import Arguments, Subject, ask
from ..host import backend, injection, patching
from ..host import training as host
from ..host.description import describe

NODE = "Train Video Model"
# pixels a latent cell of Stable Diffusion
STRIDE = 8


def subject_of(model: Any, recipe: Recipe, dtype: torch.dtype) -> Subject:
    """What a recipe trains of a MODEL, which stays as it is.

    ValueError for a MODEL whose network is neither of this pack nor the host's UNet of pictures, or that lacks the part.
    """
    host.check_attention()
    own = getattr(model.model, "recipe", None)
    if own is not None:
        return _of_family(model, recipe, dtype)
    if injection.picture_unet(model) is not None:
        return _of_pictures(model, recipe, dtype)
    raise ValueError(
        f"{NODE} trains CogVideoX, SVD and PixArt of this pack's loaders, and SD1.5 and SDXL: got "
        f"{type(model.model).__name__}. Load one with its loader."
    )


def _of_family(model: Any, recipe: Recipe, dtype: torch.dtype) -> Subject:
    """A network of this pack."""
    own, said = model.model.recipe, describe(model, NODE)
    network = own.part.build(
        own.config, ops=EmptyCastOperations, attention=backend.attend, dtype=dtype, device="meta"
    )
    own.fill(network, dtype)
    for add_on in (GRID_MODULES, EXVIDEO):
        _put_layers(model, network, add_on, dtype)
    _merge(network, host.changed_weights(model, network.state_dict()))
    with draws.seeded("start", recipe.steps.seed):
        _start_part(network, own, recipe)
    # a share of each block goes to the device, where the whole need not fit
    place = "cpu" if recipe.machine.sharing == "weights" else host.device()
    network = host.place_copy(network, place).requires_grad_(False)
    return Subject(
        family=own.family.id,
        label=said.label,
        network=network,
        noise=_noise(said.noise),
        scale=own.family.network.latents(own.config).scale,
        frames_on_batch=said.grid.frames_on_batch,
        conditions=partial(own.family.network.conditions, own.config),
        predict=partial(ask, network),
        blocks=blocks_of(network),
        config=own.config,
    )


def _put_layers(model: Any, network: nn.Module, add_on: AddOn, dtype: torch.dtype) -> None:
    """Put layers that another node put into a MODEL into its copy, too."""
    shapes = patching.layer_shapes(model)
    if not all(key in shapes for key in add_on.part.signature):
        return
    layers = add_on.part.build(  # type: ignore[misc]
        _layer_config(model, add_on, shapes),
        ops=EmptyCastOperations,
        attention=backend.attend,
        dtype=dtype,
        device="meta",
    )
    stored = {
        f"{place.removeprefix(host.PREFIX)}.{key}": value.to(dtype)
        for place, layer in model.object_patches.items()
        if isinstance(layer, nn.Module) and place.startswith(host.PREFIX)
        for key, value in layer.state_dict().items()
    }
    layers.load_state_dict(stored, assign=True)
    layers.put_into(network)  # type: ignore[operator]


def _layer_config(model: Any, add_on: AddOn, shapes: Mapping[str, Any]) -> Any:
    if add_on is EXVIDEO:
        return model.model.recipe.config
    return add_on.part.read_config(shapes, None)


def _merge(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    for key, value in weights.items():
        own[key].copy_(value.to(own[key]))


def _start_part(network: nn.Module, own: Any, recipe: Recipe) -> None:
    """Put in what a recipe trains from nothing, where the MODEL has none yet."""
    part = recipe.part.name
    if part == "exvideo" and own.family.id == SVD.id:
        if not any("positional" in name for name, _ in network.named_parameters()):
            branches = ExVideoBranches(own.config, CastOperations, backend.attend, torch.float32)  # type: ignore[arg-type]
            branches.start_from(network)  # type: ignore[arg-type]
            branches.put_into(network)  # type: ignore[arg-type]
    if part == "motion_module" and own.family.id in GRID_MODULES.bases:
        if not any("attn_temporal" in name for name, _ in network.named_parameters()):
            config = GridConfig(own.config.num_layers, own.config.width)
            modules = GRID_MODULES.part.build(config, CastOperations, backend.attend, torch.float32)  # type: ignore[misc]
            modules.start()
            modules.put_into(network)


def _of_pictures(model: Any, recipe: Recipe, dtype: torch.dtype) -> Subject:
    """The host's UNet, with the motion modules of a MODEL or with new ones."""
    said = describe(model, NODE)
    motion, config = _motion_of(model, dtype)
    if motion is None and recipe.part.name == "motion_module":
        with draws.seeded("start", recipe.steps.seed):
            motion, config = _new_motion(model)
    joint = config is not None and config.joint_base_norms
    unet = host.copy_unet(model, dtype)
    if motion is not None:
        motion = host.place_copy(motion, host.device()).requires_grad_(False)
    network = host.PictureNetwork(unet, motion, joint)
    noise = said.noise
    if config is not None and not injection.has_motion(model):
        noise = config.noise
    return Subject(
        family=ANIMATEDIFF.id,
        label=said.label,
        network=network,
        noise=_noise(noise),
        scale=said.latents.scale,
        frames_on_batch=True,
        conditions=_picture_conditions,
        predict=partial(_predict_pictures, network, model),
        takes_pooled=host.takes_labels(model),
        blocks=tuple(host.unet_blocks(network)),
    )


def _motion_of(model: Any, dtype: torch.dtype) -> tuple[Any, MotionConfig | None]:
    """The motion modules of a MODEL once more, with its MotionLoRAs merged in."""
    if not injection.has_motion(model):
        return None, None
    patcher = injection.motion_patcher(model)
    motion = patcher.cached_patcher_init[1][0]
    modules = MODULES.part.build(  # type: ignore[misc]
        motion.config, ops=EmptyCastOperations, attention=backend.attend_short, dtype=dtype, device="meta"
    )
    motion.fill(modules, dtype)
    weights = modules.state_dict()
    for key, patches in patcher.patches.items():
        if key in weights:
            weights[key].copy_(host.patched(patches, weights[key], key).to(dtype))
    return modules, motion.config


def _new_motion(model: Any) -> tuple[Any, MotionConfig]:
    """Motion modules in the layout of v3, at the start of training: they change nothing."""
    unet = injection.picture_unet(model)
    assert unet is not None
    config = MotionConfig(
        unet.channels, unet.layers, version="SDXL beta" if len(unet.channels) == 3 else "v3"
    )
    modules = MODULES.part.build(config, CastOperations, backend.attend_short, torch.float32)  # type: ignore[misc]
    modules.start()
    return modules, config


def _picture_conditions(request: Request) -> Arguments:
    """Text features, the frames of a clip, and what SDXL is told beside them."""
    if request.context is None:
        raise ValueError("Pictures are trained with captions: the clip has no text features.")
    frames = request.clip_frames or request.noise_shape[0]
    return {"context": request.context.repeat_interleave(frames, 0), "frames": frames}


def _predict_pictures(
    network: nn.Module, model: Any, x: Tensor, timestep: Tensor, arguments: Arguments
) -> Tensor:
    """Epsilon of the frames of clips; SDXL is told their size beside the text."""
    frames, y = arguments["frames"], None
    if "pooled" in arguments:
        height, width = (cells * STRIDE for cells in x.shape[-2:])
        y = host.labels(model, arguments["pooled"].cpu(), width, height).to(x).repeat_interleave(frames, 0)
    return network(x, timestep, arguments["context"], frames, y)


def blocks_of(network: nn.Module) -> tuple[nn.Module, ...]:
    """What of a network of this pack is computed anew in the backward pass, and sharded one by one."""
    if hasattr(network, "transformer_blocks"):
        return tuple(network.transformer_blocks)  # type: ignore[arg-type]
    return tuple(layer for layer in network.numbered_layers())  # type: ignore[operator]


def _noise(noise: Noise | None) -> Noise:
    if noise is None:
        raise ValueError(f"The noise process of this model is not known: {NODE} cannot train it.")
    return noise


def check_part(model: Any, recipe: Recipe) -> None:
    """ValueError where a MODEL has nothing of the part that a recipe trains, before anything is loaded."""
    own, part = getattr(model.model, "recipe", None), recipe.part
    network = model.model.diffusion_model
    modules, names = dict(network.named_modules()), [name for name, _ in network.named_parameters()]
    if own is None:
        modules = {f"{parts.UNET}{name}": module for name, module in modules.items()}
        names = [f"{parts.UNET}{name}" for name in names]
        if injection.has_motion(model):
            motion = injection.motion_patcher(model).model
            modules |= {f"{parts.MOTION}{name}": module for name, module in motion.named_modules()}
            names += [f"{parts.MOTION}{name}" for name, _ in motion.named_parameters()]
    names += list(patching.layer_shapes(model))
    for place, layer in model.object_patches.items():
        if isinstance(layer, nn.Module) and place.startswith(host.PREFIX):
            inside = place.removeprefix(host.PREFIX)
            modules |= {
                f"{inside}.{name}" if name else inside: module for name, module in layer.named_modules()
            }
    starts = {"motion_module": (None, *GRID_MODULES.bases), "exvideo": (SVD.id,)}
    if (own and own.family.id) in starts.get(part.name, ()):
        return
    if not parts.lora_modules(part, modules):
        parts.whole_names(part.name, names)
