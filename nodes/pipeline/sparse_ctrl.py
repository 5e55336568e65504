"""SparseCtrl: a file and the numbers of its key frames to a CONTROL_NET of the host."""

from functools import partial

import torch
from torch import Tensor

from ...modules.conditioning.first_frame import fit_image
from ...modules.conditioning.pinned_frames import parse_frames, resolve_frames
from ...modules.families import ANIMATEDIFF, SPARSE
from ...modules.families.animatediff.config import Base
from ...modules.families.animatediff.sparse import SparseConfig
from ...modules.weights.files import FileIdentity
from ..host import backend
from ..host.injection import PictureUNet
from ..host.sparse_control import SparseControl, SparseRecipe, load_control
from . import loading, models

KIND = SPARSE.part.kind


def list_files() -> list[str]:
    """Names of the files that may be SparseCtrl."""
    return models.list_parts(ANIMATEDIFF, KIND)


def post_problem(name: str | None, key_frames: str | None) -> str | None:
    """Why a file is no SparseCtrl, from its header alone, or a text no list of frames; None when both may do."""
    try:
        if key_frames is not None:
            parse_frames(key_frames)
        if name is not None:
            loading.open_add_on(name, KIND).find(ANIMATEDIFF, KIND)
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
    source = loading.open_add_on(name, KIND).source(ANIMATEDIFF, KIND, backend.maps_weights())
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
