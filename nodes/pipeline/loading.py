"""Checkpoints to MODEL, CLIP, CLIP_VISION and VAE of the host."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from ...modules.encoders.clip_vision import to_hugging_face
from ...modules.families import COGVIDEOX, SVD
from ...modules.families.cogvideox.vae import Schedule
from ...modules.families.family import AddOn, Family, Kind
from ...modules.families.svd import EXVIDEO
from ...modules.weights.checkpoint import Checkpoint, Source
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity
from ...modules.weights.load import assign
from ..host import backend, clip_vision, description, diffusion, patching, text_encoder, vae
from . import adoption, models

FROM_TRANSFORMER = "from the transformer"
DECODE = (FROM_TRANSFORMER, "base", "fun")
FROM_MODEL = "from the model's folder"
# the same, where a single file may hold all parts
FROM_CHECKPOINT = "from the checkpoint"
WEIGHT_DTYPES = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


def find_part(model: str, chosen: str, kind: Kind) -> Path:
    """Where one part of a pipeline lies.

    `chosen` is a name from the model folders, or FROM_MODEL for the part that came with the model.
    """
    own = chosen in (FROM_MODEL, FROM_CHECKPOINT)
    path = models.find_model(model, ("diffusion_model",)) if own else models.find_model(chosen, (kind,))
    part = models.part_path(path, kind)
    if chosen == FROM_MODEL and kind != "diffusion_model" and not part.is_dir():
        came = f"has no folder {part.name}" if path.is_dir() else "is a single file"
        raise ValueError(
            f"'{model}' {came}: it brings no {kind.replace('_', ' ')}. Choose one by name, or a diffusers folder that holds "
            "it as the model."
        )
    return part


def open_part(model: str, chosen: str, kind: Kind) -> Checkpoint:
    """The checkpoint that holds one part of a pipeline."""
    return models.open_checkpoint(find_part(model, chosen, kind))


def source_of(family: Family, model: str, chosen: str, kind: Kind) -> Source:
    """One part of a pipeline to load from; CheckpointError unless it is a complete one."""
    return open_part(model, chosen, kind).source(family, kind, backend.maps_weights())


def parts_problem(family: Family, model: str, **chosen: str) -> str | None:
    """Why a model and its chosen parts (kind -> choice) are of no use, from their headers alone; or None."""
    try:
        open_part(model, model, "diffusion_model").find(family, "diffusion_model")
        for kind, choice in chosen.items():
            open_part(model, choice, kind).find(family, kind)
    except ValueError as error:
        return str(error)
    return None


def fingerprint(model: str | None, **chosen: str | None) -> list[FileIdentity]:
    """What the files of a model and of its chosen parts (kind -> choice) are now: others are loaded again.

    Names that are linked arrive as None and cannot be looked up.
    """
    choices = {"diffusion_model": model, **chosen}
    parts = [(choice, kind) for kind, choice in choices.items() if choice is not None and model is not None]
    return [file for choice, kind in parts for file in models.identity(find_part(model, choice, kind))]


def load_cogvideox(
    model: str, text_encoder: str, vae: str, weight_dtype: str, decode: str = FROM_TRANSFORMER
) -> tuple[object, object, object]:
    """MODEL, CLIP and VAE of a CogVideoX pipeline; `decode` is one of DECODE."""
    network = source_of(COGVIDEOX, model, model, "diffusion_model")
    config = network.finding.config
    return (
        load_model(COGVIDEOX, network, weight_dtype),
        load_text_encoder(COGVIDEOX, model, text_encoder, config.max_text_tokens),
        load_video_vae(COGVIDEOX, model, vae, config.schedule if decode == FROM_TRANSFORMER else decode),
    )


def load_svd(model: str, image_encoder: str, vae: str, weight_dtype: str) -> tuple[object, object, object]:
    """MODEL, CLIP_VISION and VAE of an SVD pipeline."""
    network = source_of(SVD, model, model, "diffusion_model")
    patcher = load_model(SVD, network, weight_dtype)
    if network.finding.config.exvideo:
        patching.guard_clips(patcher, EXVIDEO.check_clip)
    return patcher, load_image_encoder(SVD, model, image_encoder), load_frames_vae(SVD, model, vae)


def load_model(family: Family, source: Source, weight_dtype: str, over: Source | None = None) -> object:
    """The MODEL of a family's diffusion network; what `over` holds takes the place of its weights."""
    finding, sources = source.finding, (source, *(() if over is None else (over,)))

    def check() -> None:
        for one in sources:
            one.check()

    recipe = diffusion.ModelRecipe(
        family=family,
        part=finding.part,
        config=finding.config,
        fill=source.fill if over is None else _laid_over(source, over),
        check=check,
        notes=source.notes,
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        dtype=WEIGHT_DTYPES[weight_dtype],
    )
    return diffusion.load_model(recipe)


def _laid_over(source: Source, over: Source) -> diffusion.Fill:
    """A function that fills a network with the weights of one source where the other has none."""

    def fill(module: torch.nn.Module, dtype: torch.dtype) -> None:
        assign(module, {**source.open(), **over.open()}, dtype)

    return fill


def load_text_encoder(
    family: Family,
    model: str,
    chosen: str,
    max_tokens: int,
    pads: bool = True,
    prepare: Callable[[str], str] = str,
) -> object:
    """The CLIP of a T5 encoder that prepares, cuts and pads prompts as they were in the transformer's training."""
    source = source_of(family, model, chosen, "text_encoder")
    recipe = text_encoder.TextRecipe(
        sizes=source.finding.config,
        open_weights=source.open,
        weight_dtype=getattr(torch, source.finding.dtype),
        parameters=source.finding.parameters,
        max_tokens=max_tokens,
        check=source.check,
        pads=pads,
        prepare=prepare,
    )
    return text_encoder.load_clip(recipe)


def load_video_vae(family: Family, model: str, chosen: str, schedule: Schedule) -> object:
    """The VAE of a causal video VAE."""
    source = source_of(family, model, chosen, "vae")
    config = dataclasses.replace(source.finding.config, schedule=schedule)
    grid = dataclasses.replace(family.network.grid, channels=config.latent_channels, patch_hw=1)
    return vae.VideoVAE(
        vae.VAERecipe(source.finding.part, config, grid, source.fill, source.check, source.notes)
    )


def load_image_encoder(family: Family, model: str, chosen: str) -> object:
    """The CLIP_VISION of a checkpoint."""
    source = source_of(family, model, chosen, "image_encoder")
    config = source.finding.config

    def open_weights() -> dict[str, torch.Tensor]:
        return to_hugging_face(source.open(), config)

    return clip_vision.load_clip_vision(
        clip_vision.VisionRecipe(config, open_weights, source.finding.name, source.check, source.notes)
    )


def load_frames_vae(family: Family, model: str, chosen: str) -> object:
    """The VAE of an SVD checkpoint.

    A single file holds two encoders: the one that the picture was encoded with in training is used, as diffusers
    does. Raises CheckpointError when it is there but not complete.
    """
    checkpoint = open_part(model, chosen, "vae")
    source = checkpoint.source(family, "vae", backend.maps_weights())
    config, fill = source.finding.config, source.fill
    if checkpoint.has(family, "image_vae"):
        picture = checkpoint.source(family, "image_vae", backend.maps_weights())
        config = _joint_config(source, picture)
        fill = _merged_filler(source, picture)
    grid = dataclasses.replace(family.network.grid, patch_hw=1)
    return vae.FramesVAE(vae.VAERecipe(source.finding.part, config, grid, fill, source.check))


def _joint_config(video: Source, picture: Source) -> object:
    """The config of a VAE with the picture's encoder; CheckpointError where the two differ in size."""
    own = picture.finding.config
    config = dataclasses.replace(video.finding.config, quant_conv=own.quant_conv)
    if config != own:
        raise CheckpointError(
            f"{video.finding.name} holds two image encoders of different sizes: {config}, {own}."
        )
    return config


def _merged_filler(video: Source, picture: Source) -> diffusion.Fill:
    """A function that fills a VAE with the decoder of one part of a file and the encoder of another."""

    def fill(module: torch.nn.Module, dtype: torch.dtype) -> None:
        decoder = {key: value for key, value in video.open().items() if key.startswith("decoder.")}
        assign(module, {**decoder, **picture.open()}, dtype)

    return fill


def open_add_on(name: str | None, kind: Kind) -> Checkpoint:
    """The checkpoint that holds what goes into another model's network."""
    return models.open_checkpoint(models.find_model(str(name), (kind,)))


def add_on_problem(family: Family, name: str | None, kind: Kind) -> str | None:
    """Why a file is no such add-on of a family, from its header alone; None when it is one."""
    try:
        open_add_on(name, kind).find(family, kind)
    except ValueError as error:
        return str(error)
    return None


def add_layers(model: object, add_on: AddOn, family: Family, name: str, node: str) -> object:
    """A clone of a MODEL of a family with an add-on's layers in place of its own.

    ValueError for a MODEL of another family, or for layers of other sizes.
    """
    source = open_add_on(name, add_on.part.kind).source(family, add_on.part.kind, backend.maps_weights())
    finding = source.finding
    model = adoption.own_model(model, node, family)
    config = model.model.recipe.config
    add_on.check_fit(finding.name, finding.config, config)
    layers = patching.Layers(add_on, config, source.fill, source.check, source.notes)
    longer = patching.swap_layers(model, layers)
    size, limits = family.network.native_size(finding.config), add_on.limits(finding.config)
    noise = family.network.image_noise(finding.config)
    described = dataclasses.replace(
        description.describe(model, node), native_size=size, limits=limits, image_noise=noise
    )
    description.attach(longer, described)
    return longer
