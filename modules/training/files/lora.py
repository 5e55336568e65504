"""LoRAs in the spellings of the programs that read them; what each makes of alpha is in the tensors, never lost.

kohya (kohya-ss/sd-scripts) divides alpha by the rank, PEFT tells both beside the tensors, AnimateDiff knows neither.
"""

import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ...families.animatediff.keys import LORA_DIRECTOR, LORA_ORIGINAL
from ...weights.lora import NETWORK, NOTES
from ..low_rank import DOWN, UP
from ..parts import MOTION, UNET
from .names import kohya_names, motion_names, peft_names, picture_names

# lower half (rank, in) and upper half (out, rank)
Pair = tuple[Tensor, Tensor]
Pairs = Mapping[str, Pair]
# One underscore, which the LoRA loaders of ComfyUI and of CogVideoX-Fun take alike; EasyAnimate's and Fun's own files
# have two, which ComfyUI's does not.
KOHYA = "lora_unet_"
ALPHA = ".alpha"
PROCESSED = re.compile(r"\.(to_\w+?)(?:\.0)?$")


def pairs_of(trained: Mapping[str, Tensor]) -> dict[str, Pair]:
    """{layer: its halves} of the tensors that a training of a LoRA gives."""
    down, up = f".{DOWN}", f".{UP}"
    layers = [name.removesuffix(down) for name in trained if name.endswith(down)]
    if not layers or 2 * len(layers) != len(trained):
        raise ValueError(f"These are not the halves of a LoRA: {', '.join(list(trained)[:2]) or 'nothing'}.")
    return {layer: (trained[layer + down], trained[layer + up]) for layer in layers}


def kohya(pairs: Pairs, alpha: float, network: list[str]) -> dict[str, Tensor]:
    """W + alpha / rank * up @ down; alpha in float32, whatever the halves are stored in."""
    names = kohya_names(pairs, network)
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in pairs.items():
        name = KOHYA + names[layer].replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[name + ALPHA] = torch.tensor(alpha, dtype=torch.float32)
    return tensors


def peft(pairs: Pairs, alpha: float, family: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(W + up @ down with alpha / rank in the upper half, what diffusers reads of it).

    Programs that know no metadata take a scale of one, and so do those that do: alpha is told to be the rank.
    """
    names = peft_names(family, pairs)
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in folded(pairs, alpha).items():
        tensors |= {f"{names[layer]}.lora_A.weight": down, f"{names[layer]}.lora_B.weight": up}
    rank = rank_of(pairs)
    prefix = next(iter(names.values())).split(".")[0]
    layers = sorted(name.removeprefix(f"{prefix}.") for name in names.values())
    facts = {"r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none", "target_modules": layers}
    return tensors, {NOTES: json.dumps({f"{prefix}.{key}": value for key, value in facts.items()})}


def motion_lora(pairs: Pairs, alpha: float, whole: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """AnimateDiff's MotionLoRA, W + up @ down; with more layers than the attentions' it is MotionDirector's, `whole`."""
    names = motion_names(pairs, LORA_DIRECTOR if whole else LORA_ORIGINAL)
    facts = {"model_type": "motion_director", "rank": str(rank_of(pairs))} if whole else {}
    return _processors(folded(pairs, alpha), names), facts


def domain_adapter(pairs: Pairs, alpha: float, network: list[str]) -> dict[str, Tensor]:
    """AnimateDiff's domain adapter, W + up @ down."""
    plain = picture_names(pairs, network)
    names = {layer: PROCESSED.sub(r".processor.\1", name) for layer, name in plain.items()}
    return _processors(folded(pairs, alpha), names)


def _processors(pairs: Pairs, names: Mapping[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in pairs.items():
        tensors |= {f"{names[layer]}_lora.down.weight": down, f"{names[layer]}_lora.up.weight": up}
    return tensors


def host_lora(
    trained: Mapping[str, Tensor], alpha: float, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The same as the host's LORA_MODEL, which its loader puts on the MODEL that was trained, by the network's own names.

    ValueError for a LoRA of motion modules, which the host knows nothing of.
    """
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in pairs_of(trained).items():
        if layer.startswith(MOTION):
            raise ValueError(
                "ComfyUI's LORA_MODEL reaches no motion module: save the MotionLoRA, and put it on with LoRA Stack."
            )
        name = NETWORK + layer.removeprefix(UNET)
        tensors |= {f"{name}.lora_down.weight": down.to(dtype), f"{name}.lora_up.weight": up.to(dtype)}
        tensors[name + ALPHA] = torch.tensor(alpha, dtype=torch.float32)
    return tensors


def folded(pairs: Pairs, alpha: float) -> dict[str, Pair]:
    """The halves with alpha / rank in the upper one, for readers that know no alpha."""
    return {layer: (down, up * (alpha / len(down))) for layer, (down, up) in pairs.items()}


def rank_of(pairs: Pairs) -> int:
    """Of all pairs."""
    return len(next(iter(pairs.values()))[0])
