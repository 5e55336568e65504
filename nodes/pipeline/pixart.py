"""PixArt to MODEL, CLIP and VAE of the host: a personalised checkpoint over the base, unpadded prompts, the host's VAE."""

import dataclasses
from typing import Any

from ...modules.families import PIXART
from ...modules.families.family import Kind
from ...modules.families.pixart.captions import DEEPFLOYD, PREPARATIONS, check_packages
from ...modules.families.pixart.config import MAX_TEXT_TOKENS
from ...modules.weights.checkpoint import Source
from ...modules.weights.detect import detect_all
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity
from ..host import backend, picture_model
from . import loading, models

NONE = "none"
KIND: Kind = "diffusion_model"


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
                loading.open_part(model, text_encoder, "text_encoder").find(PIXART, "text_encoder")
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
        picture_model.load_vae(vae.open),
    )


def _check_captions(captions: str | None) -> None:
    """ValueError where a preparation of captions needs packages that are not there."""
    if captions == DEEPFLOYD:
        check_packages()


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
            f"{finding.name} is {finding.what}, the model is {base.finding.what}: sizes differ. Use a checkpoint "
            "that was trained from this base."
        )
    return Source(checkpoint.path, finding, checkpoint.files, backend.maps_weights())


def _sizes(config: Any) -> tuple[int, ...]:
    return config.num_layers, config.width, config.text_dim, int(config.sized)


def _vae_source(model: str, chosen: str) -> Source:
    """The VAE of Stable Diffusion, or TAESD in its place, read at once: the host keeps what it is given."""
    checkpoint = loading.open_part(model, chosen, "vae")
    kind: Kind = "tiny_vae" if checkpoint.has(PIXART, "tiny_vae") else "vae"
    return checkpoint.source(PIXART, kind, mapped=False)
