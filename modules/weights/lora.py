"""LoRA files: which weights they change, by the names and shapes of the model.

`read_lora` looks at a header; `renamed` gives the tensors the names that ComfyUI's own LoRA code reads for any
model: `diffusion_model.<module>.<word>`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite, prod, sqrt
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError, shown, shown_list
from .lora_names import (
    ALPHA,
    ALPHA_END,
    BIAS_DIFF,
    DIFF,
    DOWN,
    UP,
    Names,
    Written,
    dialect_of,
    names_of,
    stem_of,
)
from .part import Part, Shapes

NETWORK = "diffusion_model."
# in the metadata of files that PEFT and diffusers write: rank, alpha and what differs from them
NOTES = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoRA:
    """Which of a file's keys change one network, and which do not."""

    # the file's key -> <place><our module>.<word>
    renames: Mapping[str, str]
    # modules that the file changes
    matched: int
    # the file's keys whose module is unknown, whose shape is wrong, or whose other half is missing
    unmatched: tuple[str, ...]
    # the highest of all modules
    rank: int
    # our module -> rank; 0 where the file holds a whole difference
    ranks: Mapping[str, int] = field(default_factory=dict)
    # who writes such files
    dialect: str = "unknown"
    # what ComfyUI has in front of the network's modules
    place: str = NETWORK

    @property
    def modules(self) -> tuple[str, ...]:
        """What the file changes."""
        return tuple(self.ranks)

    def without(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The unmatched keys that are not among `keys`."""
        known = set(keys)
        return tuple(key for key in self.unmatched if key not in known)


def read_lora(name: str, shapes: Shapes, part: Part, wanted: Shapes, allow_partial: bool = False) -> LoRA:
    """Match a LoRA file with a model.

    `shapes` are the file's (`Header.shapes`), `wanted` the model's (`Part.shapes`). CheckpointError when no key
    matches, or some do not and `allow_partial` is false: half a LoRA is another LoRA.
    """
    lora = match_lora(shapes, names_of(part, wanted))
    check_match(name, len(lora.renames), lora.unmatched, allow_partial)
    return lora


def match_lora(shapes: Shapes, names: Names, place: str = NETWORK) -> LoRA:
    """What a file changes in the network that has these names; nothing is an answer, too."""
    found, written = _sort_by_module(shapes, names)
    fitting = {module: keys for module, keys in found.items() if _fits(module, keys, shapes, names)}
    renames = {
        key: f"{place}{module}.{word}" for module, keys in fitting.items() for word, key in keys.items()
    }
    ranks = {module: shapes[keys[DOWN]][0] if DOWN in keys else 0 for module, keys in fitting.items()}
    return LoRA(
        renames=renames,
        matched=len(fitting),
        unmatched=tuple(key for key in shapes if key not in renames),
        rank=max(ranks.values(), default=0),
        ranks=ranks,
        dialect=dialect_of(written[key] for key in renames if key in written),
        place=place,
    )


def check_match(
    name: str, matched: int, unmatched: tuple[str, ...], allow_partial: bool, remark: str = ""
) -> None:
    """CheckpointError when none of a file's keys fits, or only some do and that is not allowed.

    `remark` is a sentence on what the file is.
    """
    remark = f" {remark}" if remark else ""
    if not matched:
        raise CheckpointError(
            f"{name} changes nothing in this model: none of its {len(unmatched)} keys fits ({shown_list(unmatched)})."
            f"{remark} Choose a LoRA made for it."
        )
    if unmatched and not allow_partial:
        raise CheckpointError(
            f"{name} fits this model only in part: {matched} keys fit, {len(unmatched)} do not "
            f"({shown_list(unmatched)}).{remark} Choose a LoRA made for this model, or allow a partial one."
        )


def renamed(tensors: Mapping[str, Tensor], lora: LoRA) -> dict[str, Tensor]:
    """The tensors of a LoRA under the names that ComfyUI reads."""
    return {new: tensors[key] for key, new in lora.renames.items()}


def with_alphas(
    name: str, tensors: Mapping[str, Tensor], lora: LoRA, metadata: Mapping[str, str]
) -> dict[str, Tensor]:
    """Renamed tensors, each module with the alpha that the file's metadata tells; keys of its own come first.

    The change is strength * alpha / rank * up @ down, without the quotient where no alpha is told. CheckpointError
    for a number that is not finite.
    """
    check_values(name, {key: tensors[key] for key in lora.renames})
    result = renamed(tensors, lora)
    told = read_alphas(name, metadata, lora.ranks)
    more = {f"{lora.place}{module}.{ALPHA}": torch.tensor(alpha) for module, alpha in told.items()}
    return more | result


def check_values(name: str, tensors: Mapping[str, Tensor]) -> None:
    """CheckpointError unless all numbers of a LoRA are finite."""
    for key, tensor in tensors.items():
        # an alpha may be a whole number
        count = ALPHA_END.search(key) is not None and tensor.dtype in (torch.int64, torch.int32)
        if not (tensor.is_floating_point() or count):
            raise CheckpointError(
                f"{name} holds {shown(key)} as {str(tensor.dtype).removeprefix('torch.')}, a LoRA is made of floating "
                "point numbers. Use the file as it was published."
            )
        # 8-bit floats have no test of their own
        if not (tensor if tensor.element_size() > 1 else tensor.float()).isfinite().all():
            raise CheckpointError(
                f"{name} holds numbers that are not finite (NaN or infinite) in {shown(key)}: its training failed, or "
                "the file is damaged. Download it again or choose another one."
            )


def read_alphas(name: str, metadata: Mapping[str, str], ranks: Mapping[str, int]) -> dict[str, float]:
    """{module: alpha} as PEFT's notes in a file's metadata tell it; empty where there are none.

    CheckpointError where the notes cannot be read: another strength would be taken in silence.
    """
    if NOTES not in metadata:
        return {}
    notes = _notes(name, metadata[NOTES])
    alpha, special = notes.get("lora_alpha"), notes.get("alpha_pattern") or {}
    alphas: dict[str, float] = {}
    for module, rank in ranks.items():
        own = next((value for key, value in special.items() if f".{module}".endswith(f".{key}")), alpha)
        if own is None or not rank:
            continue
        if isinstance(own, bool) or not isinstance(own, int | float) or not isfinite(own):
            raise CheckpointError(f"{name} tells an alpha in its metadata that is no number: {shown(own)}.")
        # rank-stabilised LoRA divides by the root of the rank
        alphas[module] = float(own) * (sqrt(rank) if notes.get("use_rslora") else 1.0)
    return alphas


def _notes(name: str, text: str) -> dict[str, Any]:
    """PEFT's notes on the network; those on a text encoder have its name in front."""
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise CheckpointError(f"{name} has {NOTES} in its metadata that cannot be read. Download it again.")
    words = {key.rsplit(".", 1)[-1]: value for key, value in notes.items() if "text_encoder" not in key}
    if not isinstance(words.get("alpha_pattern") or {}, dict):
        raise CheckpointError(f"{name} has an alpha_pattern in its metadata that cannot be read.")
    return words


def _sort_by_module(shapes: Shapes, names: Names) -> tuple[dict[str, dict[str, str]], dict[str, Written]]:
    """({module: {word: the file's key}} of known modules, {key: how it is written}).

    A module that a file names twice, or for which it holds what is known to nobody here, is left out whole.
    """
    found: dict[str, dict[str, str]] = {}
    written: dict[str, Written] = {}
    stems: dict[str, str] = {}
    spoiled, strange = set(), []
    for key in shapes:
        stem = stem_of(key)
        place = stem and names.find(stem.text)
        if stem is None or place is None:
            strange.append(key)
            continue
        module, whose, prefix = place
        stems[stem.text] = module
        if stem.word in found.setdefault(module, {}):
            spoiled.add(module)
        found[module][stem.word] = key
        if stem.style:
            written[key] = Written(stem.style, whose, prefix)
    spoiled |= {stems[text] for key in strange for text in _beginnings(key) if text in stems}
    return {module: keys for module, keys in found.items() if module not in spoiled}, written


def _beginnings(key: str) -> Iterable[str]:
    """Everything that a key may begin with, up to a dot."""
    parts = key.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _fits(module: str, keys: Mapping[str, str], shapes: Shapes, names: Names) -> bool:
    """Whether what a file holds for a module has the shapes of its weight and its bias.

    down is (rank, in, ...), up is (out, rank), with a kernel of one pixel for convolutions.
    """
    held, weight = {word: shapes[key] for word, key in keys.items()}, names.weights[module]
    if BIAS_DIFF in held and held[BIAS_DIFF] != names.biases.get(module):
        return False
    if DIFF in held:
        return held[DIFF] == weight and not {DOWN, UP, ALPHA} & held.keys()
    if DOWN not in held or UP not in held:
        return held.keys() == {BIAS_DIFF}
    down, up = held[DOWN], held[UP]
    if len(down) < 2 or len(up) < 2 or up[1] != down[0] or not down[0] or prod(up[2:]) != 1:
        return False
    if prod(held.get(ALPHA, ())) != 1:
        return False
    same = up[0] == weight[0] and prod(down[1:]) == prod(weight[1:])
    return len(weight) > 1 and (same or names.any_size)


def grouped(modules: Iterable[str]) -> list[str]:
    """Modules that differ in a number alone as one entry each: "blocks.0-41.attn1.to_q"."""
    groups: dict[str, list[int]] = {}
    for module in modules:
        parts = module.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        number = -1 if place is None else int(parts[place])
        name = module if place is None else ".".join([*parts[:place], "{}", *parts[place + 1 :]])
        groups.setdefault(name, []).append(number)
    return [name.format(_span(numbers)) if numbers[0] >= 0 else name for name, numbers in groups.items()]


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    whole = len(set(numbers)) == high - low + 1
    return str(low) if low == high else f"{low}-{high}" if whole else ",".join(map(str, sorted(numbers)))


def rank_words(ranks: Iterable[int]) -> str:
    """ "rank 64", or of a file with several "ranks 4 (2 modules), 64 (334 modules)"."""
    counts = Counter(rank for rank in ranks if rank)
    if len(counts) < 2:
        return f"rank {next(iter(counts), 0)}"
    return "ranks " + ", ".join(f"{rank} ({count} modules)" for rank, count in sorted(counts.items()))
