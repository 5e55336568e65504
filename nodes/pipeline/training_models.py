"""The files that a recipe names, opened as the loaders of a graph would: MODEL and the encoders beside it."""

from collections.abc import Callable
from typing import Any

from ...modules.families import COGVIDEOX, PIXART, SVD
from ...modules.families.family import Family
from ...modules.training.recipe import Files
from ..host import picture_model
from . import loading, lora_stack, models, motion, pixart, pocket
from .subjects import NODE
from .training_examples import Encoders

KIND = "diffusion_model"


def load(files: Files) -> tuple[Any, Encoders]:
    """MODEL and encoders; ValueError for a file that is not there, or of no use."""
    model, encoders = _open(files)
    if files.domain_adapter:
        row = lora_stack.Row(files.domain_adapter, 1.0, 1.0)
        model = lora_stack.stack(model, None, [row], lora_stack.Wish(False, 1.0))[0]
    if files.motion_module:
        settings = motion.Settings(1.0, motion.AS_TRAINED, motion.FROM_FILE, 0)
        model = motion.apply(model, files.motion_module, settings, NODE)
    return model, encoders


def _open(files: Files) -> tuple[Any, Encoders]:
    name = files.diffusion_model
    if name in models.list_picture_models() and pocket.problem(name) is None:
        return _pictures(pocket.load_pocket(name))
    checkpoint = models.open_checkpoint(models.part_path(models.find_model(name, (KIND,)), KIND))
    for family, opened in LOADERS:
        if checkpoint.has(family, KIND):
            return opened(files)
    return _pictures(picture_model.load_checkpoint(models.find_model(name, (KIND,))))


def _pictures(parts: tuple[Any, Any, Any]) -> tuple[Any, Encoders]:
    model, clip, vae = parts
    return model, Encoders(vae, clip)


def _cogvideox(files: Files) -> tuple[Any, Encoders]:
    own = loading.FROM_MODEL
    text, vae = files.text_encoder or own, files.vae or own
    return _pictures(loading.load_cogvideox(files.diffusion_model, text, vae, "auto"))


def _svd(files: Files) -> tuple[Any, Encoders]:
    own = loading.FROM_CHECKPOINT
    model, vision, vae = loading.load_svd(
        files.diffusion_model, files.image_encoder or own, files.vae or own, "auto"
    )
    return model, Encoders(vae, None, vision)


def _pixart(files: Files) -> tuple[Any, Encoders]:
    own = loading.FROM_MODEL
    chosen = pixart.Files(files.diffusion_model, files.text_encoder or own, files.vae or own)
    return _pictures(pixart.load(chosen, "auto", next(iter(pixart.PREPARATIONS))))


LOADERS: tuple[tuple[Family, Callable[[Files], tuple[Any, Encoders]]], ...] = (
    (COGVIDEOX, _cogvideox),
    (SVD, _svd),
    (PIXART, _pixart),
)
