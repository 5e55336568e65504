"""SparseCtrl: a file and the numbers of its key frames to a CONTROL_NET of the host."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from ...modules.conditioning.first_frame import fit_image
from ...modules.conditioning.pinned_frames import parse_frames, resolve_frames
from ...modules.families import ANIMATEDIFF, SPARSE
from ...modules.families.animatediff.config import Base
from ...modules.families.animatediff.sparse import SparseConfig
from ...modules.weights.checkpoint import Checkpoint
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity
from ..host import backend
from ..host.injection import PictureUNet
from ..host.sparse_control import SparseControl, SparseRecipe, load_control
from . import loading, models

KIND = SPARSE.part.kind
# what keys of ControlNets without motion modules start with or hold, in diffusers' and in the original names
CONTROL_NETS = ("controlnet_", "input_hint_block.", "zero_convs.", "control_model.")


def list_files() -> list[str]:
    """Names of the files that may be SparseCtrl."""
    return models.list_parts(ANIMATEDIFF, KIND)


def post_problem(name: str | None, key_frames: str | None) -> str | None:
    """Why a file is no SparseCtrl, from its header alone, or a text no list of frames; None when both may do."""
    try:
        if key_frames is not None:
            parse_frames(key_frames)
        if name is not None:
            _open(name).find(ANIMATEDIFF, KIND)
    except ValueError as error:
        return str(error)
    return None


def fingerprint(name: str | None) -> list[FileIdentity]:
    """What the file is now; nothing for a linked name."""
    return [] if name is None else [*models.identity(models.find_model(name, (KIND,)))]


def load(name: str, key_frames: str) -> SparseControl:
    """The CONTROL_NET of a file; ValueError for another file, or for a text that names no frames or one twice."""
    numbers = parse_frames(key_frames)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"key_frames names a frame twice: {key_frames!r}. Each takes one picture.")
    source = _open(name).source(ANIMATEDIFF, KIND, backend.maps_weights())
    file, config = source.finding.name, source.finding.config
    recipe = SparseRecipe(
        label=f"SparseCtrl {config.condition} ({file})",
        add_on=SPARSE,
        config=config,
        fill=source.fill,
        check=source.check,
        weight_dtype=getattr(torch, source.finding.dtype),
        check_base=partial(_check_base, file, config),
        key_frames=numbers,
        places=partial(resolve_frames, numbers),
        fit=_cover,
    )
    return load_control(recipe)


def _open(name: str) -> Checkpoint:
    """The file of a name; CheckpointError for a ControlNet that the host has a node for."""
    checkpoint = loading.open_add_on(name, KIND)
    keys = checkpoint.header.shapes
    if not checkpoint.has(ANIMATEDIFF, KIND) and _is_control_net(keys):
        raise CheckpointError(
            f"{checkpoint.header.name} is a ControlNet for pictures, with no motion modules for key frames: load it with "
            "ComfyUI's Load ControlNet Model, or choose a SparseCtrl file such as v3_sd15_sparsectrl_rgb.ckpt."
        )
    return checkpoint


def _is_control_net(keys: Iterable[str]) -> bool:
    return any(key.startswith(CONTROL_NETS) for key in keys)


def _check_base(file: str, config: SparseConfig, unet: PictureUNet | None) -> None:
    """ValueError unless a network is the UNet that a file was made for."""
    if unet is None:
        raise ValueError(
            f"{file} is SparseCtrl {config.condition} for SD1.5 with AnimateDiff v3: the model is of another kind. Take its "
            "Apply ControlNet out of the conditioning, or use an SD1.5 model."
        )
    SPARSE.check_fit(file, config, Base(unet.channels, unet.layers, unet.context_dim))


def _cover(images_bhwc: Tensor, width: int, height: int) -> Tensor:
    """Pictures that cover a size, cut evenly, as AnimateDiff's own script and Apply ControlNet have them."""
    return fit_image(images_bhwc, width, height, "crop")
