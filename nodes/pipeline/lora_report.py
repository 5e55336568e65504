"""What LoRA Stack says of a file: who wrote it, its ranks, what it changes, what is left out."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...modules.lora_origin import kinds_of, text_parts
from ...modules.weights.errors import shown, shown_list
from ...modules.weights.files import Header
from ...modules.weights.lora import LoRA, rank_words, read_alphas
from ...modules.weights.lora_names import ALPHA, stem_of


@dataclass(frozen=True)
class Told:
    """One row of a stack, as it was matched."""

    strength: float
    text_strength: float
    lora: LoRA
    text: LoRA | None
    # keys that change nothing
    left: tuple[str, ...]
    # of the MODEL that is changed
    part: str = "model"


def report(header: Header, told: Told, tensors: Mapping[str, Tensor]) -> str:
    """Lines for people."""
    lora, text = told.lora, told.text
    lines = [
        f"{header.name}: {lora.dialect}, {rank_words([*lora.ranks.values(), *(text.ranks.values() if text else ())])}"
        f", {_alphas(header, tensors, lora)}",
        f"  {told.part} at {told.strength:g}: {lora.matched} modules: {shown_list(kinds_of(lora.modules), 12)}",
    ]
    waiting, count = text_parts({key: header.shapes[key] for key in told.left})
    if text is not None and text.matched:
        lines.append(f"  T5 at {told.text_strength:g}: {text.matched} modules")
    elif waiting:
        lines.append(f"  T5: {count} modules left out, no CLIP with a T5 encoder is connected")
    others = [key for key in told.left if key not in waiting]
    if others:
        stems = dict.fromkeys(stem.text if (stem := stem_of(key)) else key for key in others)
        lines.append(f"  left out: {len(others)} keys: {shown_list(map(shown, stems))}")
    return "\n".join(lines)


def _alphas(header: Header, tensors: Mapping[str, Tensor], lora: LoRA) -> str:
    """ "alpha 64", "no alpha (scale 1)" or, of several, the span."""
    own = {float(tensors[key]) for key, name in lora.renames.items() if name.endswith(f".{ALPHA}")} or set(
        read_alphas(header.name, header.metadata, lora.ranks).values()
    )
    if not own:
        return "no alpha (scale 1)"
    return f"alpha {min(own):g}" + (f" to {max(own):g}" if len(own) > 1 else "")
