"""ExVideo onto a MODEL: layers of its own for SVD, a LoRA for CogVideoX 5B."""

import dataclasses
from pathlib import Path
from typing import Any

from ...modules.families import COGVIDEOX, SVD
from ...modules.families.cogvideox import exvideo
from ...modules.families.svd import EXVIDEO
from ...modules.lora_origin import find_origin
from ...modules.weights.errors import CheckpointError
from ...modules.weights.files import FileIdentity, read_header
from ...modules.weights.lora_names import is_lora
from ..host import description, guards
from ..host import lora as host_lora
from . import loading, lora, models

KIND = EXVIDEO.part.kind


def list_files() -> list[str]:
    """Names of the files that may be ExVideo's, those for SVD first."""
    return list(dict.fromkeys([*models.list_parts(SVD, KIND), *models.list_loras(COGVIDEOX)]))


def _find(name: str) -> Path:
    """Path of a name: where SVD's extensions lie first, then among the LoRA files."""
    return models.find_model(name, (KIND,))


def post_problem(name: str | None) -> str | None:
    """Why a file is ExVideo for neither of the two, from its header alone; None when it may be."""
    try:
        path = _find(str(name))
        # all that is no single file is SVD's matter
        if path.is_file() and is_lora((header := read_header(path)).shapes):
            origin = find_origin(header.shapes)
            if origin.family != COGVIDEOX.id:
                raise CheckpointError(
                    f"{header.name} is a LoRA for {origin.what or 'an unknown model'}; ExVideo's is for CogVideoX 5B. Put "
                    "it on with LoRA Stack, on a model that it was made for."
                )
            return None
    except ValueError as error:
        return str(error)
    return loading.add_on_problem(SVD, name, KIND)


def fingerprint(name: str | None) -> list[FileIdentity]:
    """What the file is now; nothing for a linked name."""
    return [] if name is None else [*models.identity(_find(name))]


def extend(model: Any, name: str, node: str) -> Any:
    """A clone of a MODEL of SVD or of CogVideoX 5B for ExVideo's clips; ValueError for any other pair."""
    path = _find(name)
    if not (path.is_file() and is_lora(read_header(path).shapes)):
        return loading.add_layers(model, EXVIDEO, SVD, name, node)
    recipe = getattr(model.model, "recipe", None)
    if recipe is None or recipe.family.id != COGVIDEOX.id:
        label = type(model.model).__name__ if recipe is None else recipe.label
        raise ValueError(
            f"{path.name} is a LoRA, as ExVideo has for CogVideoX 5B: got {label}. Load CogVideoX-5b with CogVideoX "
            "Loader, or choose ExVideo's file for SVD (528 tensors)."
        )
    return _with_lora(model, path, recipe.config, node)


def _with_lora(model: Any, path: Path, config: Any, node: str) -> Any:
    """The MODEL with ExVideo's LoRA at strength 1, and with the sizes it was made for."""
    network = lora.network_of(model)
    loaded = lora.load(lora.Row(path.name, 1.0), lora.read_file(path), network, None, allow_partial=False)
    exvideo.check_fit(path.name, config, loaded.modules)
    longer = host_lora.add(model, loaded.model, 1.0)
    size = exvideo.native_size(read_header(path).settings)
    said = description.describe(model, node)
    said = dataclasses.replace(
        said, label=f"{said.label} with ExVideo", native_size=size, limits=exvideo.limits(size)
    )
    description.attach(longer, said)
    guards.guard_limits(longer, said)
    return longer
