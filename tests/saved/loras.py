"""LoRA files for the pocket CogVideoX, the same on every computer: of two dialects, one with parts for T5."""

from math import sqrt

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FIRST, FUN, PEFT = "a-first.safetensors", "fun.safetensors", "peft.safetensors"
TEXT = ("SelfAttention.q.weight", "DenseReluDense.wo.weight")


def write(folder, pipeline):
    """Three files below `folder`, for the parts of a diffusers folder; the first in the list is a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    text = shapes_of(pipeline / "text_encoder" / "model.safetensors")
    known = {key: shape for key, shape in text.items() if key.endswith(TEXT)}
    fun = {
        **network(pipeline),
        **pairs(known, "lora_te_", ("lora_down", "lora_up"), 2),
    }
    peft = pairs(blocks_of(pipeline), "transformer.", ("lora_A", "lora_B"), 3)
    for name, tensors in ((FIRST, fun), (FUN, fun), (PEFT, {**peft, "a.key.of.nobody": torch.ones(1)})):
        save_file(tensors, folder / name)


def network(pipeline):
    """A LoRA of every block of the transformer of a diffusers folder, in Fun's words."""
    return pairs(blocks_of(pipeline), "lora_unet__", ("lora_down", "lora_up"), 1)


def blocks_of(pipeline):
    net = shapes_of(pipeline / "transformer" / "diffusion_pytorch_model.safetensors")
    return {key: shape for key, shape in net.items() if "transformer_blocks" in key and len(shape) == 2}


def shapes_of(file):
    with safe_open(file, framework="pt") as weights:
        return {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118


def pairs(shapes, prefix, words, seed):
    """Random halves of rank 4 for each weight; with alpha where underscores stand for dots."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, (out, into) in sorted(shapes.items()):
        stem = key.removesuffix(".weight")
        stem = prefix + (stem if prefix.endswith(".") else stem.replace(".", "_"))
        tensors[f"{stem}.{words[0]}.weight"] = torch.randn(4, into, generator=generator) / sqrt(into)
        tensors[f"{stem}.{words[1]}.weight"] = torch.randn(out, 4, generator=generator) * 0.05
        if not prefix.endswith("."):
            tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors
