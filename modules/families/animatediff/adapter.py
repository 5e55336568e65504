"""AnimateDiff's domain adapter (arXiv 2307.04725, sec. 4.1): a LoRA of every attention of SD1.5's UNet.

It took up the look of the training videos, so that the motion modules did not have to; without it that look is gone.
"""

import re
from dataclasses import replace

from ...weights.lora import LoRA, match_lora
from ...weights.lora_names import Names
from ...weights.part import Shapes

LABEL = "SD1.5 (AnimateDiff's v3 domain adapter)"
# v3_sd15_adapter.ckpt's; LoRAs that diffusers once wrote have the same names, and rank 4
RANK = 128
# of SD1.5, on the way down; none is on its coarsest level
CHANNELS = (320, 640, 1280)
LAYERS = 2
CONTEXT = 768
# of copies for other programs
PREFIX = "lora_unet_"
OUT = re.compile(r"to_out\.0$")


def _places() -> dict[str, int]:
    """{place of a spatial transformer: its channels}."""
    down = {
        f"down_blocks.{level}.attentions.{layer}": count
        for level, count in enumerate(CHANNELS)
        for layer in range(LAYERS)
    }
    up = {
        f"up_blocks.{level}.attentions.{layer}": count
        for level, count in enumerate(reversed(CHANNELS), 1)
        for layer in range(LAYERS + 1)
    }
    return {**down, "mid_block.attentions.0": CHANNELS[-1], **up}


def _shapes() -> dict[str, tuple[int, int]]:
    """{linear layer: (out, in)} of both attentions of every place."""
    return {
        f"{place}.transformer_blocks.0.attn{number}.{name}": (
            channels,
            CONTEXT if number == 2 and name in ("to_k", "to_v") else channels,
        )
        for place, channels in _places().items()
        for number in (1, 2)
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    }


def _names() -> Names:
    """Of the published file, and of copies whose underscores stand for dots."""
    shapes = _shapes()
    processors = {
        OUT.sub("to_out", module).replace(".to_", ".processor.to_"): (module, "AnimateDiff")
        for module in shapes
    }
    flat = {module.replace(".", "_"): (module, "") for module in shapes}
    return Names(shapes, {}, processors | flat, (PREFIX,))


NAMES = _names()


def find_adapter(shapes: Shapes) -> LoRA | None:
    """The match of a file that is the domain adapter and nothing else, for SD1.5 of any width; None for any other file."""
    # nor has it alphas
    if len(shapes) != 2 * len(NAMES.weights):
        return None
    found = match_lora(shapes, replace(NAMES, any_size=True))
    whole = found.matched == len(NAMES.weights) and {*found.ranks.values()} == {RANK}
    return found if whole else None
