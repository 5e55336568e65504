"""The pocket SD's file to the host's MODEL, CLIP and VAE."""

import dataclasses
from functools import partial

import torch

from ...modules.pocket_sd import (
    MAX_TOKENS,
    REMEDY,
    TEXT,
    UNET,
    VAE,
    PocketSD,
    check_shapes,
    open_pocket,
)
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity
from ..host import description, picture_model, text_encoder
from . import models

# of its pictures in pixels, one frame
NATIVE_SIZE = (64, 64, 1)


def find_pocket(name: str) -> PocketSD:
    """The pocket SD of a name from the list; CheckpointError, by the name, for any other file."""
    pocket = open_pocket(models.find_picture_model(name))
    try:
        check_shapes(pocket.unet, picture_model.unet_shapes(pocket.unet), "UNet")
        check_shapes(pocket.vae, picture_model.vae_shapes(), "VAE")
    except ValueError as error:
        raise CheckpointError(f"{pocket.name} is no pocket SD: {error} {REMEDY}") from None
    return pocket


def problem(name: str | None) -> str | None:
    """Why a file is no pocket SD, from its header alone; or None. A link is not known yet."""
    try:
        if name is not None:
            find_pocket(name)
    except ValueError as error:
        return str(error)
    return None


def fingerprint(name: str | None) -> list[FileIdentity]:
    """What the file is now: another one under its name is loaded again."""
    return [] if name is None else list(models.identity(models.find_picture_model(name)))


def load_pocket(name: str) -> tuple[object, object, object]:
    """MODEL, CLIP and VAE of the host."""
    pocket = find_pocket(name)
    recipe = picture_model.PictureRecipe(partial(pocket.open, UNET))
    text = pocket.open(TEXT)
    words = text_encoder.TextRecipe(
        sizes=pocket.text,
        open_weights=partial(pocket.open, TEXT),
        weight_dtype=next(iter(text.values())).dtype if text else torch.float32,
        parameters=sum(value.numel() for value in text.values()),
        max_tokens=MAX_TOKENS,
    )
    model = picture_model.load_model(recipe)
    described = description.describe(model, "Pocket Loader")
    description.attach(model, dataclasses.replace(described, label="Pocket SD", native_size=NATIVE_SIZE))
    return model, text_encoder.load_clip(words), picture_model.load_vae(partial(pocket.open, VAE))
