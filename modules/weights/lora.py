"""LoRA files: which weights they change, by the names and shapes of the model.

`read_lora` looks at a header; `renamed` gives the tensors the names that ComfyUI's own LoRA code reads for any
model: `diffusion_model.<module>.<word>`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

from .errors import CheckpointError
from .keymap import KeyMap
from .part import Part, Shapes

# In front of a module's name: PEFT's, the host's two, diffusers'.
PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")
KOHYA_PREFIXES = ("lora_unet__", "lora_unet_", "lora_transformer_")
DOWN, UP, ALPHA = "lora_A.weight", "lora_B.weight", "alpha"
# How files end their keys -> PEFT's ending, which the host reads too.
WORDS = {
    ".lora_A.weight": DOWN,
    ".lora_A.default.weight": DOWN,
    ".lora_down.weight": DOWN,
    ".lora.down.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora_B.default.weight": UP,
    ".lora_up.weight": UP,
    ".lora.up.weight": UP,
    ".alpha": ALPHA,
}


@dataclass(frozen=True)
class LoRA:
    """Which of a file's keys change this model, and which do not."""

    # the file's key -> diffusion_model.<our module>.<word>
    renames: Mapping[str, str]
    # modules that the file changes
    matched: int
    # the file's keys whose module is unknown, whose shape is wrong, or whose other half is missing
    unmatched: tuple[str, ...]
    rank: int


def read_lora(name: str, shapes: Shapes, part: Part, wanted: Shapes, allow_partial: bool = False) -> LoRA:
    """Match a LoRA file with a model.

    `shapes` are the file's (`Header.shapes`), `wanted` the model's (`Part.shapes`). CheckpointError when no key
    matches, or some do not and `allow_partial` is false: half a LoRA is another LoRA.
    """
    modules = {key.removesuffix(".weight"): shape for key, shape in wanted.items() if key.endswith(".weight")}
    found = _sort_by_module(shapes, _spellings(modules, part.dialects.values()))
    fitting = {module: keys for module, keys in found.items() if _fits(keys, shapes, modules[module])}
    renames = {
        key: f"diffusion_model.{module}.{word}"
        for module, keys in fitting.items()
        for word, key in keys.items()
    }
    unmatched = tuple(key for key in shapes if key not in renames)
    if not fitting or (unmatched and not allow_partial):
        raise CheckpointError(_complaint(name, len(renames), unmatched))
    rank = max(shapes[keys[DOWN]][0] for keys in fitting.values())
    return LoRA(renames, len(fitting), unmatched, rank)


def renamed(tensors: Mapping[str, Tensor], lora: LoRA) -> dict[str, Tensor]:
    """The tensors of a LoRA under the names that ComfyUI reads."""
    return {new: tensors[key] for key, new in lora.renames.items()}


def _spellings(modules: Iterable[str], dialects: Iterable[KeyMap]) -> dict[str, str]:
    """Every way a file may write a module's name -> ours. Underscored names are looked up, never split."""
    spellings = {module: module for module in modules}
    for dialect in dialects:
        for theirs, module in _reversed_names(spellings.values(), dialect).items():
            spellings.setdefault(theirs, module)
    return spellings | {theirs.replace(".", "_"): module for theirs, module in spellings.items()}


def _reversed_names(modules: Iterable[str], dialect: KeyMap) -> dict[str, str]:
    back = dialect.reverse()
    names = {module: back.find(f"{module}.weight")[1] for module in dict.fromkeys(modules)}
    return {theirs.removesuffix(".weight"): module for module, theirs in names.items() if theirs}


def _sort_by_module(shapes: Shapes, spellings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """{our module: {word: the file's key}} of the keys whose module is known."""
    found: dict[str, dict[str, str]] = {}
    for key in shapes:
        ending = next((ending for ending in WORDS if key.endswith(ending)), None)
        if ending is None:
            continue
        stem = key.removesuffix(ending)
        module = next((spellings[name] for name in _bare(stem) if name in spellings), None)
        if module is not None:
            found.setdefault(module, {})[WORDS[ending]] = key
    return found


def _bare(stem: str) -> Iterable[str]:
    """The name as it is, and without each known prefix."""
    yield stem
    for prefix in (*PREFIXES, *KOHYA_PREFIXES):
        if stem.startswith(prefix):
            yield stem.removeprefix(prefix)
            yield from _bare(stem.removeprefix(prefix))


def _fits(keys: Mapping[str, str], shapes: Shapes, weight: tuple[int, ...]) -> bool:
    """Whether up times down has the weight's shape; down is (rank, in, ...), up is (out, rank, ...)."""
    if DOWN not in keys or UP not in keys:
        return False
    down, up = shapes[keys[DOWN]], shapes[keys[UP]]
    if len(down) < 2 or len(up) < 2 or up[1] != down[0]:
        return False
    return len(weight) > 1 and up[0] == weight[0] and prod(down[1:]) == prod(weight[1:])


def _complaint(name: str, matched: int, unmatched: tuple[str, ...]) -> str:
    shown = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
    if not matched:
        return f"{name} changes nothing in this model: none of its {len(unmatched)} keys fits ({shown}). Choose a LoRA made for it."
    return (
        f"{name} fits this model only in part: {matched} keys fit, {len(unmatched)} do not ({shown}). "
        "Choose a LoRA made for this model, or allow a partial one."
    )
