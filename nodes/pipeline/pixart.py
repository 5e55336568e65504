"""PixArt to MODEL, CLIP and VAE of the host: a personalised checkpoint over the base, unpadded prompts, the host's VAE."""

import dataclasses
from functools import partial
from typing import Any

import torch

from ...modules.families import PIXART
from ...modules.families.family import Kind
from ...modules.families.pixart.captions import DEEPFLOYD, PREPARATIONS, check_packages
from ...modules.families.pixart.config import MAX_TEXT_TOKENS
from ...modules.families.svd.config import LATENT_SCALE
from ...modules.weights.checkpoint import Checkpoint, Source
from ...modules.weights.detect import detect_all
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity
from ...modules.weights.finding import Finding
from ..host import backend, picture_model
from . import loading, models

NONE = "none"
KIND: Kind = "diffusion_model"
# of a number in half precision
SCALE_ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True)
class Files:
    """The widgets of PixArt Loader that name files."""

    model: str
    text_encoder: str
    vae: str
    personalized: str = NONE


def list_personalized() -> list[str]:
    """Names of the checkpoints that may be laid over a base."""
    return [NONE, *models.list_parts(PIXART, KIND)]


def problem(
    model: str | None,
    text_encoder: str | None,
    vae: str | None,
    personalized: str | None,
    captions: str | None,
) -> str | None:
    """Why files are of no use, from their headers alone, or captions cannot be prepared so; or None."""
    try:
        _check_captions(captions)
        if model is not None:
            base = loading.source_of(PIXART, model, model, KIND)
            _over(base, personalized or NONE)
            if text_encoder is not None:
                _check_text(base, loading.open_part(model, text_encoder, "text_encoder"))
            if vae is not None:
                _vae_source(model, vae)
    except ValueError as error:
        return str(error)
    return None


def fingerprint(
    model: str | None, text_encoder: str | None, vae: str | None, personalized: str | None
) -> list[FileIdentity]:
    """What the files are now: others are loaded again."""
    files = loading.fingerprint(model, text_encoder=text_encoder, vae=vae)
    over = loading.fingerprint(personalized) if personalized not in (None, NONE) else []
    return [*files, *over]


def load(files: Files, weight_dtype: str, captions: str) -> tuple[object, object, object]:
    """MODEL, CLIP and VAE of a PixArt pipeline; `captions` is one of PREPARATIONS."""
    _check_captions(captions)
    network = loading.source_of(PIXART, files.model, files.model, KIND)
    vae = _vae_source(files.model, files.vae)
    _check_text(network, loading.open_part(files.model, files.text_encoder, "text_encoder"))
    return (
        loading.load_model(PIXART, network, weight_dtype, _over(network, files.personalized)),
        loading.load_text_encoder(
            PIXART,
            files.model,
            files.text_encoder,
            MAX_TEXT_TOKENS,
            pads=False,
            prepare=PREPARATIONS[captions],
        ),
        picture_model.load_vae(partial(_vae_weights, vae)),
    )


def _check_captions(captions: str | None) -> None:
    """ValueError where a preparation of captions needs packages that are not there."""
    if captions == DEEPFLOYD:
        check_packages()


def _check_text(base: Source, checkpoint: Checkpoint) -> None:
    """CheckpointError unless a file is a T5 encoder whose features the transformer takes."""
    finding, wanted = checkpoint.find(PIXART, "text_encoder"), base.finding.config.text_dim
    if finding.config.d_model != wanted:
        raise CheckpointError(
            f"{finding.name} is a T5 encoder of {finding.config.d_model} numbers a token, {base.finding.name} takes {wanted}. "
            "Use the T5 v1.1 XXL encoder that PixArt was trained with, such as t5xxl_fp16.safetensors."
        )


def _over(base: Source, name: str) -> Source | None:
    """The personalised checkpoint of a name; CheckpointError unless all it holds has a place in the base."""
    if name == NONE:
        return None
    checkpoint = models.open_checkpoint(models.part_path(models.find_model(name, (KIND,)), KIND))
    finding = detect_all(checkpoint.header, (PIXART,))[0]
    if finding.part is None or finding.kind != KIND:
        # whatever it is is said, with the node that takes it
        checkpoint.find(PIXART, KIND)
    if finding.config is None or finding.unexpected or finding.misshapen or finding.problem:
        finding.check()
    if _sizes(finding.config) != _sizes(base.finding.config):
        raise CheckpointError(
            f"{finding.name} is {_described(finding)}, the model is {_described(base.finding)}: sizes differ. Use a "
            "checkpoint that was trained from this base."
        )
    return Source(checkpoint.path, finding, checkpoint.files, backend.maps_weights())


def _sizes(config: Any) -> tuple[int, ...]:
    return config.num_layers, config.width, config.text_dim, int(config.sized)


def _described(finding: Finding) -> str:
    """A checkpoint with the sizes that a personalised one shares with its base."""
    config = finding.config
    return f"{finding.what} of {config.num_layers} blocks of {config.width} channels, for texts of {config.text_dim}"


def _vae_source(model: str, chosen: str) -> Source:
    """The VAE of Stable Diffusion, or TAESD in its place, read at once: the host keeps what it is given."""
    checkpoint = loading.open_part(model, chosen, "vae")
    kind: Kind = "tiny_vae" if checkpoint.has(PIXART, "tiny_vae") else "vae"
    return checkpoint.source(PIXART, kind, mapped=False)


def _vae_weights(source: Source) -> picture_model.Weights:
    """What the host builds a VAE from; CheckpointError for TAESD of other latents, which has the same shapes."""
    weights = source.open()
    scale = float(weights.get("vae_scale", torch.tensor(LATENT_SCALE)))
    if abs(scale - LATENT_SCALE) > SCALE_ROUNDING:
        raise CheckpointError(
            f"{source.finding.name} is a TAESD for latents scaled by {scale:g}, those of PixArt are scaled by {LATENT_SCALE}: "
            "use TAESD of SD1.5."
        )
    return weights
