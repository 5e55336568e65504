"""What a LoRA file was made for, from its keys and shapes: dialect, family, variants, ranks, parts of a text encoder."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from .encoders.t5 import T5Config, key_shapes
from .families import ANIMATEDIFF, FAMILIES
from .families.animatediff.adapter import LABEL as ADAPTER
from .families.animatediff.adapter import find_adapter
from .families.family import Family, Kind, Part, Shapes
from .weights.lora import LoRA, grouped, match_lora
from .weights.lora_names import DOWN, Names, names_of, stem_of, text_names

# Signs of families that are not loaded here: what all of a file's stems together say, and the width of the input of
# one kind of layer where names alone are shared. The first that fits counts.
SIGNS: tuple[tuple[str, re.Pattern[str], int | None], ...] = (
    ("SDXL", re.compile(r"^lora_te2_"), None),
    ("Wan", re.compile(r"(^|[._])blocks[._]\d+[._](cross_attn|self_attn)[._]"), None),
    ("HunyuanVideo", re.compile(r"double_blocks\.\d+\.(img|txt)_attn_qkv"), None),
    (
        "Flux",
        re.compile(r"double_blocks\.\d+\.(img|txt)_attn\.qkv|^lora_transformer_single_transformer_"),
        None,
    ),
    (
        "Flux or HunyuanVideo",
        re.compile(r"(double_blocks|single_blocks|single_transformer_blocks)[._]\d"),
        None,
    ),
    ("SD3", re.compile(r"joint_blocks[._]\d"), None),
    ("LTX-Video", re.compile(r"transformer_blocks[._]\d+[._]attn2[._]to_k$"), 2048),
    ("SD1.5", re.compile(r"(down_blocks|input_blocks)[._].*attn2[._](processor\.)?to_k$"), 768),
    ("SD2", re.compile(r"(down_blocks|input_blocks)[._].*attn2[._](processor\.)?to_k$"), 1024),
    ("SDXL", re.compile(r"(down_blocks|input_blocks)[._].*attn2[._](processor\.)?to_k$"), 2048),
)
CHANGED: tuple[Kind, ...] = ("diffusion_model", "motion_module")
ADAPTER_HINT = (
    "adapter_alpha of LoRA Stack times its strength counts: 0, as in AnimateDiff's own examples, leaves it out; 1 goes "
    "with SparseCtrl"
)
# where LoRA files of most families go
FOLDER = "loras"
# in the name of what lies in a motion module
MOTION_BLOCK = "temporal_transformer.transformer_blocks.0."


@dataclass(frozen=True)
class Origin:
    """What a LoRA file was made for."""

    # as people know it; "unknown" where nothing tells
    label: str
    # id of one of our families; empty for others
    family: str
    # of the family, all that it fits
    variants: tuple[str, ...]
    # its match with the first of them, or with nothing
    lora: LoRA
    # keys of the file for a T5 encoder, and how many of its modules
    text_keys: tuple[str, ...]
    num_text_modules: int
    # the model folder of such files
    folder: str = FOLDER
    # what else to know before it is used; empty for most
    hint: str = ""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Keys that belong to no known place."""
        return self.lora.without(self.text_keys)

    @property
    def remark(self) -> str:
        """A sentence for an error; empty where nothing is sure."""
        if self.label == "unknown":
            return ""
        return f"It was made for {self.what}."

    @property
    def what(self) -> str:
        """Label and variants."""
        *most, last = self.variants or ("",)
        return f"{self.label} {', '.join(most)}{' or ' if most else ''}{last}".strip()


def kinds_of(modules: Iterable[str]) -> list[str]:
    """Kinds of modules for people; of motion modules, which are all alike, only what is inside one."""
    inside = (module.split(MOTION_BLOCK)[-1] if MOTION_BLOCK in module else module for module in modules)
    return grouped(dict.fromkeys(inside))


def family_of(shapes: Shapes) -> str:
    """Id of the family of ours that a LoRA file was made for, quickly; "other" for all others.

    That of the most names, then of the most inputs as wide: PixArt calls some modules as CogVideoX does.
    """
    if _by_sign(shapes):
        return "other"
    inputs = _inputs(shapes)
    scores = [(family.id, _likeness(names, inputs)) for family, _, _, names in _published()]
    family, (known, _) = max(scores, key=lambda score: score[1])
    return family if known else "other"


def _likeness(names: Names, inputs: Mapping[str, int]) -> tuple[int, int]:
    """How many modules of a file this network has, and how many of those with an input as wide."""
    widths = [
        (names.weights[place[0]][1:2], (width,))
        for text, width in inputs.items()
        if (place := names.find(text))
    ]
    return len(widths), sum(ours == theirs for ours, theirs in widths)


def find_origin(shapes: Shapes) -> Origin:
    """What a LoRA file of these shapes was made for."""
    if adapter := find_adapter(shapes):
        return Origin(ADAPTER, ANIMATEDIFF.id, (), adapter, (), 0, hint=ADAPTER_HINT)
    text_keys, num_text = text_parts(shapes)
    tried = [
        (family, part, part.variant(config), match_lora(shapes, names))
        for family, part, config, names in _published()
    ]
    most = max(lora.matched for *_, lora in tried)
    if not most:
        return _by_names(shapes, text_keys, num_text)
    best = [one for one in tried if one[-1].matched == most]
    family, part, _, lora = best[0]
    # another's may share names with one of ours, even most: what does not fit tells whose it is
    if sign := _by_sign({key: shapes[key] for key in lora.unmatched if key not in text_keys}):
        return _unknown(shapes, sign, text_keys, num_text)
    variants = tuple(variant for other, _, variant, _ in best if other is family)
    return Origin(family.label, family.id, variants, lora, text_keys, num_text, part.lora_folder)


def text_parts(shapes: Shapes) -> tuple[tuple[str, ...], int]:
    """(keys for a T5 encoder of any size, the number of its modules that they change)."""
    names = _text_names()
    found = {key: place[0] for key in shapes if (stem := stem_of(key)) and (place := names.find(stem.text))}
    return tuple(found), len(set(found.values()))


@lru_cache(16)
def _text_names() -> Names:
    return text_names(key_shapes(T5Config()))


def _published() -> Iterator[tuple[Family, Part, Any, Names]]:
    """(family, part, config, names) of every published network that LoRA files are for, ours or in one of the host."""
    for number, family in enumerate(FAMILIES):
        for kind, part in family.parts.items():
            # a ControlNet has names of the UNet that LoRA files are for
            if kind not in CHANGED:
                continue
            for place, config in enumerate(part.published):
                yield family, part, config, _names(number, kind, place)


@lru_cache(32)
def _names(number: int, kind: Kind, place: int) -> Names:
    """Of the network at a place in the list of those that a family published."""
    part = FAMILIES[number].parts[kind]
    return names_of(part, part.shapes(part.published[place]))


def _by_names(shapes: Shapes, text_keys: tuple[str, ...], num_text: int) -> Origin:
    """What a LoRA is for whose shapes are those of no published network."""
    if sign := _by_sign(shapes):
        return _unknown(shapes, sign, text_keys, num_text)
    rest = [stem.text for key in shapes if key not in text_keys and (stem := stem_of(key)) and stem.style]
    for family, part, _, names in _published() if rest else ():
        if all(map(names.find, rest)):
            lora = match_lora(shapes, replace(names, any_size=True))
            label = f"{family.label} of another size"
            return Origin(label, family.id, (), lora, text_keys, num_text, part.lora_folder)
    return _unknown(shapes, "unknown", text_keys, num_text)


def _unknown(shapes: Shapes, label: str, text_keys: tuple[str, ...], num_text: int) -> Origin:
    return Origin(label, "", (), LoRA({}, 0, tuple(shapes), 0), text_keys, num_text)


def _by_sign(shapes: Shapes) -> str:
    """The label of a family that is not loaded here; empty where no sign is sure."""
    inputs = _inputs(shapes)
    for label, sign, width in SIGNS:
        if any(sign.search(text) and width in (None, size) for text, size in inputs.items()):
            return label
    return ""


def _inputs(shapes: Shapes) -> dict[str, int]:
    """How wide the input of each module of a LoRA file is, by its stem."""
    return {
        stem.text: shapes[key][1] if len(shapes[key]) > 1 else 0
        for key in shapes
        if (stem := stem_of(key)) and stem.word == DOWN
    }
