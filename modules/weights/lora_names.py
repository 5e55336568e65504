"""How LoRA files write the names of modules and of what they hold for each.

Tables are made from a model's own modules: names in which underscores stand for dots are looked up, never split.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .keymap import LONGEST_KEY, KeyMap
from .part import Part, Shapes

# What a file holds for a module, in the words that ComfyUI reads.
DOWN, UP, ALPHA = "lora_A.weight", "lora_B.weight", "alpha"
DIFF, BIAS_DIFF = "diff", "diff_b"
HALVES = {"A": DOWN, "down": DOWN, "B": UP, "up": UP}
# The end of a key -> who writes it so.
ENDINGS = (
    (re.compile(r"\.lora_(A|B)(?:\.[^.]+)?\.weight$"), "PEFT"),
    (re.compile(r"\.lora_(down|up)\.weight$"), "kohya"),
    (re.compile(r"\.lora\.(down|up)\.weight$"), "diffusers"),
    # attention processors of old: `processor.to_q_lora`
    (re.compile(r"_lora\.(down|up)\.weight$"), "AnimateDiff"),
    (re.compile(r"_lora_(A|B)(?:_default)?_weight$"), "Fun, flattened"),
    (re.compile(r"_lora_(down|up)_weight$"), "Fun, flattened"),
)
ALPHA_END = re.compile(r"[._]alpha$")
BESIDE = (
    (ALPHA_END, ALPHA),
    (re.compile(r"\.diff$"), DIFF),
    (re.compile(r"\.diff_b$"), BIAS_DIFF),
)
# of a file's keys that end so, before it is called a LoRA
MOST = 0.5
# In front of a module's name: PEFT's, ComfyUI's two, diffusers' two, and those that stand for dots.
PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.")
FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lora_transformer_", "diffusion_model_", "transformer_")
TEXT_PREFIXES = (
    "base_model.model.",
    "text_encoders.t5xxl.transformer.",
    "text_encoder.",
    "t5xxl.transformer.",
)
FLAT_TEXT_PREFIXES = ("lora_te__", "lora_te_", "lora_te1_", "lora_te3_", "text_encoder_")


class Stem(NamedTuple):
    """A key without its end."""

    # prefix and module, as the file writes them
    text: str
    word: str
    # who ends keys so; empty for what stands beside the halves
    style: str


def stem_of(key: str) -> Stem | None:
    """A key taken apart; None for one that ends in no known way."""
    if len(key) > LONGEST_KEY:
        return None
    for ending, style in ENDINGS:
        if fit := ending.search(key):
            return Stem(key[: fit.start()], HALVES[fit.group(1)], style)
    for ending, word in BESIDE:
        if fit := ending.search(key):
            return Stem(key[: fit.start()], word, "")
    return None


def is_lora(keys: Iterable[str]) -> bool:
    """Whether most keys of a file end as those of LoRA files do."""
    stems = [stem_of(key) for key in keys]
    return any(stem and stem.style for stem in stems) and sum(map(bool, stems)) >= MOST * len(stems)


@dataclass(frozen=True)
class Names:
    """The modules of one network, and every way in which files write them."""

    # module -> shape of its weight; of its bias, where it has one
    weights: Shapes
    biases: Shapes
    # as written -> (module, whose names they are)
    spellings: Mapping[str, tuple[str, str]]
    prefixes: tuple[str, ...]
    # whether a file may be for a network of other sizes
    any_size: bool = False

    def find(self, text: str) -> tuple[str, str, str] | None:
        """(module, whose names, the prefix in front) of a stem; None for what is no module of this network."""
        for prefix, name in _bare("", text, self.prefixes):
            if name in self.spellings:
                return *self.spellings[name], prefix
        return None


def names_of(part: Part, wanted: Shapes) -> Names:
    """The names of a diffusion network; `wanted` are its weights (`Part.shapes`)."""
    return _names(wanted, {**part.lora_names, **part.dialects}, (*PREFIXES, *FLAT_PREFIXES))


def text_names(wanted: Shapes) -> Names:
    """The names of a text encoder; `wanted` are its weights."""
    return _names(wanted, {}, (*TEXT_PREFIXES, *FLAT_TEXT_PREFIXES))


def _names(wanted: Shapes, dialects: Mapping[str, KeyMap], prefixes: tuple[str, ...]) -> Names:
    weights = {key.removesuffix(".weight"): shape for key, shape in wanted.items() if key.endswith(".weight")}
    biases = {key.removesuffix(".bias"): shape for key, shape in wanted.items() if key.endswith(".bias")}
    spellings = {module: (module, "") for module in weights}
    for whose, dialect in dialects.items():
        for theirs, module in _reversed_names(weights, dialect):
            spellings.setdefault(theirs, (module, whose))
    # what is our own name as well stays so
    flat = {theirs.replace(".", "_"): found for theirs, found in reversed(spellings.items())}
    return Names(weights, biases, flat | spellings, prefixes)


def _reversed_names(modules: Iterable[str], dialect: KeyMap) -> Iterable[tuple[str, str]]:
    """(what a dialect calls a module, the module)."""
    back = dialect.reverse()
    for module in modules:
        if theirs := back.find(f"{module}.weight")[1]:
            yield theirs.removesuffix(".weight"), module


def _bare(prefix: str, text: str, prefixes: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """(what was taken off, the rest): nothing first, then each known prefix, one behind the other."""
    yield prefix, text
    for more in prefixes:
        if text.startswith(more):
            yield from _bare(prefix + more, text.removeprefix(more), prefixes)


class Written(NamedTuple):
    """How a file writes one key: who ends it so, whose name the module has, what is in front."""

    style: str
    whose: str
    prefix: str


def dialect_of(keys: Iterable[Written]) -> str:
    """What to call a file: who ends its keys so, unless names or prefixes tell more. They share many names."""
    written = list(keys)
    whose = {one.whose for one in written}
    found = []
    for style in dict.fromkeys(one.style for one in written):
        prefixes = {one.prefix for one in written if one.style == style}
        found.append(_dialect(style, whose, prefixes))
    return " + ".join(dict.fromkeys(found)) or "unknown"


def _dialect(style: str, whose: set[str], prefixes: set[str]) -> str:
    if style.startswith("Fun") or any(prefix.startswith("lora_unet__") for prefix in prefixes):
        return style if style.startswith("Fun") else "Fun"
    if any(prefix.endswith("diffusion_model.") for prefix in prefixes) or (
        "comfy" in whose and prefixes == {""}
    ):
        return "ComfyUI"
    # diffsynth writes its own module names, with nothing in front
    return "diffsynth" if "diffsynth" in whose else style
