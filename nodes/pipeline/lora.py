"""One LoRA file, read and held against a MODEL and a CLIP before anything is put on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...modules.families import EASYANIMATE, FAMILIES
from ...modules.lora_origin import find_origin, text_parts
from ...modules.weights.checkpoint import recognise
from ...modules.weights.detect import detect_all
from ...modules.weights.errors import CheckpointError, shown
from ...modules.weights.files import FileIdentity, Header, file_identity, open_weights, read_header
from ...modules.weights.lora import NETWORK, LoRA, check_match, check_values, match_lora, with_alphas
from ...modules.weights.lora_names import Names, is_lora, names_of, text_names
from ..host import lora as host_lora
from ..host import patching
from . import models
from .lora_report import Told, report

# what the host has in front of a T5 encoder's own names
TEXT = "t5xxl.transformer."
MOST = 8


@dataclass(frozen=True)
class Row:
    """One LoRA file as a user asks for it."""

    name: str
    strength: float
    text_strength: float = 1.0


@dataclass(frozen=True)
class Network:
    """What LoRA files meet: its names, and which weight of the host each stands for."""

    names: Names
    place: str
    weights: Mapping[str, str]


@dataclass(frozen=True)
class LoRAFile:
    """A file that was read, or a part of it."""

    header: Header
    # copies: whatever becomes of the file, the MODEL keeps what was read
    tensors: Mapping[str, Tensor]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.header.shapes)

    def only(self, keys: Iterable[str]) -> "LoRAFile":
        """The same with some of its keys."""
        keys = list(keys)
        header = replace(self.header, shapes={key: self.header.shapes[key] for key in keys})
        return LoRAFile(header, {key: self.tensors[key] for key in keys})


@dataclass(frozen=True)
class Loaded:
    """A LoRA file that was read, matched and found to be whole."""

    row: Row
    model: host_lora.Patches
    clip: host_lora.Patches
    report: str
    # of the MODEL, where their names are known here
    modules: tuple[str, ...] = ()


def rows_of(loras: Mapping[str, Any]) -> list[Row]:
    """The rows of a LoRA Stack: the count under `loras`, and three inputs for each."""
    return [
        Row(loras[f"lora_{i}"], loras[f"strength_{i}"], loras[f"text_strength_{i}"])
        for i in range(1, int(loras["loras"]) + 1)
    ]


def post_problem(loras: Mapping[str, Any] | None) -> str | None:
    """Why the files of a stack are of no use, from their headers alone; None where nothing speaks against them."""
    for i in range(1, MOST + 1):
        name = (loras or {}).get(f"lora_{i}")
        try:
            if isinstance(name, str):
                check_is_lora(read_header(models.find_lora(name)))
        except ValueError as error:
            return f"lora_{i}: {error}"
    return None


def fingerprint(loras: Mapping[str, Any] | None) -> list[FileIdentity]:
    """What the files of a stack are now: others are loaded again. Linked names arrive as None."""
    names = [(loras or {}).get(f"lora_{i}") for i in range(1, MOST + 1)]
    return [file_identity(models.find_lora(name)) for name in names if isinstance(name, str)]


def loader(model: Any, clip: Any, allow_partial: bool) -> Callable[[Row, LoRAFile], Loaded]:
    """A function that matches one file with these two; their names are looked up once."""
    network, text = network_of(model), None if clip is None else _text_of(clip)
    if network is None:
        return lambda row, file: _load_for_host(row, file, model, clip, allow_partial)
    return lambda row, file: load(row, file, network, text, allow_partial)


def network_of(model: Any) -> Network | None:
    """The names of a MODEL of this pack, or of the host's whose tensors are of a family known here; None for others."""
    recipe = getattr(model.model, "recipe", None)
    if recipe is not None:
        names = names_of(recipe.part, {**recipe.part.shapes(recipe.config), **patching.layer_shapes(model)})
        return Network(names, NETWORK, {module: f"{NETWORK}{module}.weight" for module in names.weights})
    finding = recognise(model.model.diffusion_model.state_dict(), FAMILIES)
    if not finding.complete or finding.part is None:
        return None
    theirs = {ours: key for key, ours in finding.renames.items() if ours is not None}
    names = names_of(finding.part, finding.part.shapes(finding.config))
    return Network(names, NETWORK, {name: NETWORK + theirs[f"{name}.weight"] for name in names.weights})


def _text_of(clip: Any) -> Network | None:
    """The names of a CLIP's T5 encoder; None where it has none."""
    shapes = {
        key.removeprefix(TEXT): shape
        for key, shape in host_lora.weights_of(clip).items()
        if key.startswith(TEXT)
    }
    names = text_names(shapes)
    return Network(names, TEXT, {name: f"{TEXT}{name}.weight" for name in names.weights}) if shapes else None


def load(row: Row, file: LoRAFile, network: Network, text: Network | None, allow_partial: bool) -> Loaded:
    """One file for a network known here, and for a T5 encoder where there is one."""
    header, tensors = file.header, file.tensors
    lora = match_lora(header.shapes, network.names, network.place)
    text_lora = None if text is None else match_lora(header.shapes, text.names, text.place)
    left = _check(header, lora, text_lora, allow_partial)
    patches = patches_of(file, lora, network)
    text_patches = {} if text is None or text_lora is None else patches_of(file, text_lora, text)
    said = report(header, Told(row.strength, row.text_strength, lora, text_lora, left), tensors)
    return Loaded(row, patches, text_patches, said, lora.modules)


def read_file(path: Path) -> LoRAFile:
    """A file, all of it. CheckpointError when it cannot be read, or changes meanwhile."""
    before = file_identity(path)
    header = read_header(path)
    tensors = {key: tensor.clone() for key, tensor in open_weights(path).items()}
    if file_identity(path)[1:3] != before[1:3] or tensors.keys() < header.shapes.keys():
        raise CheckpointError(
            f"{header.name} changed while it was being read. Queue the prompt again once it is complete."
        )
    return LoRAFile(header, tensors)


def check_is_lora(header: Header) -> None:
    """CheckpointError for a file of another kind that is known here, naming the node that takes it."""
    if is_lora(header.shapes):
        return
    finding = detect_all(header, FAMILIES)[0]
    if finding.part is not None:
        raise CheckpointError(f"{header.name} is {finding.what}, no LoRA: use {finding.part.node.title}.")
    if finding.is_stranger:
        raise CheckpointError(finding.complaint())


def _check(header: Header, lora: LoRA, text: LoRA | None, allow_partial: bool) -> tuple[str, ...]:
    """The keys that are left out; CheckpointError where none fits, or some do not and that is not allowed."""
    changed = {*lora.renames, *(text.renames if text else ())}
    left = tuple(key for key in header.shapes if key not in changed)
    for_text, count = text_parts({key: header.shapes[key] for key in left})
    if text is None and changed and left and set(left) == set(for_text):
        if not allow_partial:
            raise CheckpointError(
                f"{header.name} also changes {count} modules of the T5 text encoder ({len(left)} keys), and no CLIP "
                "with one is connected. Connect the CLIP, or allow a partial one."
            )
        return left
    if left and not (changed and allow_partial):
        remark = _motion_remark(header, left) or find_origin(header.shapes).remark
        if text is None and for_text:
            remark = (
                f"{len(for_text)} of them are for a T5 text encoder, which no CLIP brings. {remark}".strip()
            )
        check_match(header.name, len(changed), left, allow_partial, remark)
    if not changed:
        check_match(header.name, 0, left, allow_partial)
    return left


def _motion_remark(header: Header, left: tuple[str, ...]) -> str:
    """A sentence on keys for a motion module inside a network, which is not there; empty for others."""
    for_motion = [key for key in left if find_origin({key: header.shapes[key]}).family == EASYANIMATE.id]
    if not for_motion:
        return ""
    return (
        f"{len(for_motion)} of them are for EasyAnimate v1's motion module, and this model has none that they fit: put Motion "
        "Module Apply in front of LoRA Stack."
    )


def patches_of(file: LoRAFile, lora: LoRA, network: Network) -> host_lora.Patches:
    """The host's patches of one network; CheckpointError for numbers that are not finite."""
    header = file.header
    ready = with_alphas(header.name, file.tensors, lora, header.metadata)
    weights = {f"{network.place}{module}": network.weights[module] for module in lora.modules}
    patches = host_lora.patches_of(ready, weights)
    if len({key.removesuffix(".bias").removesuffix(".weight") for key in patches}) != lora.matched:
        raise RuntimeError(f"ComfyUI read {len(patches)} of {lora.matched} modules of {header.name}.")
    return patches


def _load_for_host(row: Row, file: LoRAFile, model: Any, clip: Any, allow_partial: bool) -> Loaded:
    """One file for a MODEL that only the host knows the names of."""
    header, tensors = file.header, file.tensors
    check_values(header.name, tensors)
    found = host_lora.match(model, clip, tensors)
    count = len(header.shapes) - len(found.unmatched)
    if found.unmatched and not (count and allow_partial):
        check_match(header.name, count, found.unmatched, allow_partial, find_origin(header.shapes).remark)
    said = (
        f"{shown(header.name)} at {row.strength:g}: {len(found.model)} weights of {type(model.model).__name__} and "
        f"{len(found.clip)} of the CLIP changed by ComfyUI's own names, {len(found.unmatched)} keys left out"
    )
    return Loaded(row, found.model, found.clip, said)
