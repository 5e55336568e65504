"""Which weights of a network a training changes, by their names: whole tensors, or linear layers that get a LoRA.

Names are those of the families' networks. A picture model of the host has its own names below `unet.`, with the motion
modules' below `motion.`. Counts of the published trainings stand in tests/modules/training/test_parts.py.
"""

import re
from collections.abc import Iterable, Mapping

from torch import nn

from .recipe import PartChoice, PartName

UNET, MOTION = "unet.", "motion."
PROJECTION = r"to_(?:q|k|v|out\.0)$"
# AnimateDiff's motion modules, and EasyAnimate's inside the blocks of PixArt
MODULES = re.compile(r"(?:^|\.)(?:motion_modules\.\d+|attn_temporal)\.")
MODULE_BLOCK = re.compile(r"(?:^|\.)motion_modules\.\d+\.temporal_transformer\.transformer_blocks\.\d+\.")
MODULE_ATTENTION = re.compile(MODULE_BLOCK.pattern + r"attention_blocks\.\d+\." + PROJECTION)
# a transformer of the host's picture UNet; its projections are linear layers in SDXL alone
SPATIAL = re.compile(
    rf"^{re.escape(UNET)}(?:input_blocks|middle_block|output_blocks)\.(?:\d+\.)+(?:transformer_blocks\.|proj_(?:in|out)$)"
)
# of any family; `attn1` and `attn2` of blocks, EasyAnimate's `attention_blocks.0`
ATTENTION = re.compile(r"\.(?:attn\d|attention_blocks\.\d+)\." + PROJECTION)
# of SVD: the block over time of a transformer, of which ResBlocks have none
TIME_ATTENTION = re.compile(r"\.time_stack\.0\.attn\d\." + PROJECTION)
TIME_SELF_ATTENTION = re.compile(r"\.time_stack\.0\.attn1\." + PROJECTION)
BRANCH = re.compile(r"\.(?:time_stack\.0|time_pos_embed|positional)\.")
POSITIONAL = re.compile(r"\.positional\.")
# saved with a motion module, never trained
TABLE = re.compile(r"\.pos_encoder\.pe$")
NO_PEFT = (
    "ComfyUI reads no PEFT file for SD1.5 and SDXL: set dialect to 'kohya', which diffusers reads as well."
)
WHOLE_PARTS: tuple[PartName, ...] = ("whole", "motion_module", "exvideo", "temporal")


def whole_names(part: PartName, names: Iterable[str]) -> list[str]:
    """The weights of a network, of these names, that are trained whole; none for a part that is a LoRA.

    Motion modules put into a network are a part of their own: "whole" is the network without them. ValueError where the
    network has nothing of the part.
    """
    if part not in WHOLE_PARTS:
        return []
    names = list(names)
    chosen = [name for name in names if _is_of(part, name) and not TABLE.search(name)]
    if part == "exvideo" and not any(map(POSITIONAL.search, chosen)):
        chosen = []
    if not chosen:
        raise ValueError(f"part is {part!r}: {_lack(part)} {_kind(names)}")
    return chosen


def lora_modules(choice: PartChoice, modules: Mapping[str, nn.Module]) -> list[str]:
    """The linear layers among a network's modules that get a LoRA; none for a part that is trained whole.

    ValueError where the network has none of them, or where nothing would read the file.
    """
    if choice.name in WHOLE_PARTS:
        return []
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    rule = _rule(choice, linear)
    chosen = [name for name in linear if rule is not None and rule.search(name)]
    if not chosen:
        layers = f", layers {choice.layers!r}" if choice.name == "lora" else ""
        reason = _lack("temporal" if choice.layers.startswith("temporal") else choice.name)
        raise ValueError(f"part is {choice.name!r}{layers}: {reason} {_kind(modules)}")
    if choice.name == "lora" and choice.dialect == "PEFT" and chosen[0].startswith(UNET):
        raise ValueError(NO_PEFT)
    return chosen


def _is_of(part: PartName, name: str) -> bool:
    if part == "whole":
        return not MODULES.search(name)
    if part == "motion_module":
        return MODULES.search(name) is not None
    # SVD's own branches have no positions of their own to train
    return BRANCH.search(name) is not None and (part == "exvideo" or not POSITIONAL.search(name))


def _rule(choice: PartChoice, linear: list[str]) -> re.Pattern[str] | None:
    """What the names of the layers have in common; None where the network has none such."""
    pictures = any(map(SPATIAL.search, linear))
    whole = choice.layers == "all"
    if choice.name == "motion_lora":
        return MODULE_BLOCK if whole else MODULE_ATTENTION
    if choice.name == "domain_adapter":
        return re.compile(SPATIAL.pattern + r".*" + ATTENTION.pattern) if pictures else None
    if choice.layers in ("temporal", "temporal_self"):
        return TIME_ATTENTION if choice.layers == "temporal" else TIME_SELF_ATTENTION
    if pictures:
        return SPATIAL if whole else re.compile(SPATIAL.pattern + r".*" + ATTENTION.pattern)
    return re.compile("") if whole else ATTENTION


def _lack(part: str) -> str:
    """What a part is of, and what to do where that is missing."""
    return {
        "whole": "no weights to train are in this network.",
        "motion_module": (
            "no motion modules are in this network. AnimateDiff has them on SD1.5 and SDXL, EasyAnimate on PixArt: "
            "choose one of these, or another part."
        ),
        "motion_lora": (
            "a MotionLoRA changes AnimateDiff's motion modules, and none are in this network. Choose an SD1.5 or SDXL "
            "checkpoint with a motion module, or the part 'lora'."
        ),
        "domain_adapter": (
            "a domain adapter changes the UNet of SD1.5 or SDXL, and this network is none. Choose such a checkpoint, or the "
            "part 'lora'."
        ),
        "exvideo": (
            "ExVideo is trained on SVD with its positions in place, and none are in this network. Choose an SVD checkpoint."
        ),
        "temporal": "only SVD has branches over time. Choose an SVD checkpoint, or other layers.",
    }.get(part, "no layers of this kind are in this network. Choose other layers.")


def _kind(names: Iterable[str]) -> str:
    """What a network is called by its first weights."""
    first = [name for name in names if name][:2]
    return f"(Its first names: {', '.join(first) or 'none'}.)"
