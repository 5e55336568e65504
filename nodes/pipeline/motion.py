"""Motion modules onto an image model of the host: the file, the model it fits, its schedule."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from ...modules.families import ANIMATEDIFF, EASYANIMATE, GRID_MODULES
from ...modules.families.animatediff import MODULES, VERSIONS
from ...modules.families.animatediff.config import (
    LINEAR,
    SDXL_LINEAR,
    UNSURE,
    Base,
    MotionConfig,
    check_fit,
)
from ...modules.lora_origin import find_origin
from ...modules.noise import DiscreteNoise, TableNoise
from ...modules.weights.checkpoint import Checkpoint
from ...modules.weights.errors import CheckpointError, shown_list
from ...modules.weights.files import FileIdentity
from ...modules.weights.lora_names import is_lora
from ..host import backend, diffusion, guards, injection
from ..host.description import VideoModel, attach, describe
from . import grid_motion, loading, models

KIND = "motion_module"
FROM_FILE = grid_motion.FROM_FILE
NAMED = (FROM_FILE, *VERSIONS)
AS_TRAINED, KEEP = "as trained", "use existing"
# the words of AnimateDiff-Evolved, which name ComfyUI's schedules: its "linear" is linear in the root of beta
SCHEDULES: dict[str, DiscreteNoise | None] = {
    AS_TRAINED: None,
    "sqrt_linear (AnimateDiff)": LINEAR,
    "linear (AnimateDiff-SDXL)": SDXL_LINEAR,
    "linear (HotshotXL/default)": DiscreteNoise("epsilon", 0.00085, 0.012, "scaled_linear"),
    KEEP: None,
}


@dataclass(frozen=True)
class Settings:
    """The widgets of Motion Module Apply."""

    strength: float
    schedule: str
    version: str
    # of one clip of a batch; 0: all of it is one clip, unless the sampler knows better
    num_frames: int


def list_modules() -> list[str]:
    """Names of the files that may hold motion modules, of AnimateDiff or of EasyAnimate v1."""
    return sorted({*models.list_parts(ANIMATEDIFF, KIND), *models.list_parts(EASYANIMATE, KIND)})


def post_problem(name: str | None, version: str | None) -> str | None:
    """Why a file holds no motion modules, or not those of a version, from its header alone; None when it does."""
    if name is None:
        return None
    try:
        checkpoint = _open(name)
        if checkpoint.has(EASYANIMATE, KIND):
            grid_motion.check_file(checkpoint, version or FROM_FILE)
            return None
        finding = checkpoint.find(ANIMATEDIFF, KIND)
        if version is not None:
            named(finding.name, finding.config, version)
    except ValueError as error:
        return str(error)
    return None


def _open(name: str) -> Checkpoint:
    """The file of a name; CheckpointError for a LoRA, which another node takes."""
    checkpoint = loading.open_add_on(name, KIND)
    if is_lora(checkpoint.header.shapes):
        origin = find_origin(checkpoint.header.shapes)
        said = f"{checkpoint.header.name} is a LoRA, no motion module. {origin.remark}".strip()
        raise CheckpointError(
            f"{said} Put it into models/{origin.folder}, and on the model with LoRA Stack behind Motion Module Apply."
        )
    return checkpoint


def fingerprint(name: str | None) -> list[FileIdentity]:
    """What the file is now; nothing for a linked name."""
    return [] if name is None else [*models.identity(models.find_model(name, (KIND,)))]


def named(file: str, config: MotionConfig, version: str) -> MotionConfig:
    """The config of a file as the release that a user names; CheckpointError where it cannot be that one, or must be named."""
    if version == FROM_FILE:
        if config.version == UNSURE:
            raise CheckpointError(
                f"{file} could be a motion module of v1 or of v3: its position table, where it has one, tells neither, and "
                "their norms differ. Choose v1 or v3 as version."
            )
        return config
    try:
        return config.named(version)  # type: ignore[arg-type]
    except ValueError as error:
        raise CheckpointError(f"{file} is no {version} motion module: {error}") from None


def apply(model: Any, name: str, settings: Settings, node: str) -> Any:
    """A clone of an image MODEL with motion modules; ValueError for a MODEL or a file that do not fit one another."""
    checkpoint = _open(name)
    if checkpoint.has(EASYANIMATE, KIND):
        grid_motion.check_file(checkpoint, settings.version)
        return grid_motion.apply(
            model, checkpoint, settings.strength, settings.num_frames, SCHEDULES[settings.schedule], node
        )
    source = checkpoint.source(ANIMATEDIFF, KIND, backend.maps_weights())
    config = named(source.finding.name, source.finding.config, settings.version)
    _check_model(model, source.finding.name, config, node)
    described = _description(model, config, settings.schedule, node)
    motion = injection.Motion(
        add_on=MODULES,
        config=config,
        fill=source.fill,
        check=source.check,
        weight_dtype=getattr(torch, source.finding.dtype),
        strength=settings.strength,
        joint_base_norms=config.joint_base_norms,
    )
    moving = injection.add_motion(model, motion)
    if settings.schedule != KEEP:
        moving.add_object_patch("model_sampling", diffusion.sampling_of(described.noise))
    if settings.num_frames:
        injection.set_clip_frames(moving, settings.num_frames)
    attach(moving, described)
    guards.guard_clips(moving, lambda frames, *cells: config.check_frames(described.label, frames))
    return moving


def _check_model(model: Any, file: str, config: MotionConfig, node: str) -> None:
    """ValueError unless modules have their places in a MODEL that has none yet, naming those that do."""
    unet = injection.picture_unet(model)
    if unet is None or getattr(model.model, "recipe", None) is not None:
        raise ValueError(
            f"{node} puts motion into ComfyUI's image models SD1.5 and SDXL: got {_label(model)}. Load an SD1.5 or SDXL "
            "checkpoint with Load Checkpoint."
        )
    if injection.has_motion(model):
        raise ValueError(f"This model has motion modules already: use one {node} a model.")
    base = Base(unet.channels, unet.layers, unet.context_dim)
    try:
        check_fit(file, config, base)
    except ValueError as error:
        raise ValueError(f"{error} {_those_that_fit(base)}") from None


def _label(model: Any) -> str:
    """A MODEL as a user knows it, with the motion module that fits it where that is another one."""
    recipe = getattr(model.model, "recipe", None)
    if recipe is None:
        return type(model.model).__name__
    takes = recipe.family.id in GRID_MODULES.bases
    return recipe.label + (", which takes EasyAnimate v1's motion module" if takes else "")


def _those_that_fit(base: Base) -> str:
    """A sentence on the files in the model folders that go into a UNet."""
    fitting = [name for name in list_modules() if _fits(name, base)]
    if fitting:
        return f"Of the files in your model folders these fit: {shown_list(fitting, 8)}."
    return f"No file in your model folders fits: put a motion module for {base.label} into models/{MODULES.part.folder}."


def _fits(name: str, base: Base) -> bool:
    try:
        check_fit(name, _open(name).find(ANIMATEDIFF, KIND).config, base)
    except ValueError:
        return False
    return True


def _description(model: Any, config: MotionConfig, schedule: str, node: str) -> VideoModel:
    """What the MODEL will be: its own latents and prediction, the module's schedule, clips as it was trained on."""
    own = describe(model, node)
    noise = own.noise if schedule == KEEP else SCHEDULES[schedule] or config.noise
    if isinstance(noise, DiscreteNoise):
        if not isinstance(own.noise, TableNoise):
            raise ValueError(
                f"This model was trained on noise levels without steps, which {schedule!r} cannot be put in place of: set "
                f"beta_schedule to {KEEP!r}."
            )
        noise = dataclasses.replace(noise, prediction=own.noise.prediction)
    return dataclasses.replace(
        own,
        label=f"{config.base_label} with AnimateDiff {config.version}",
        noise=noise,
        native_size=(*own.native_size[:2], config.native_size[2]),
        limits=config.limits,
    )
