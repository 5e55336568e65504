"""What takes the place of published files in AnimateDiff's templates: the pocket SD's, and tiny ones of no training.

ComfyUI's checkpoint loader takes SD1.5 and SDXL at their published width alone, 2 and 7 GB: prompts get another loader.
"""

import os
import shutil

import torch
from safetensors.torch import load_file

from kinetograph.tests import motion_files, sparse_files
from kinetograph.tests.saved import loras
from kinetograph.tools import demo
from kinetograph.tools.commands import ROOT

TINY = "tiny_pictures"
POCKET = {"model": "SD/pocket-sd.safetensors"}
UNET = "model.diffusion_model."
MOTION = "pocket-motion.safetensors"
MOTION_LORAS = {"v2_lora_PanLeft.ckpt": "pocket-pan-left", "v2_lora_ZoomIn.ckpt": "pocket-pan-right"}
# of the pocket's UNet: (place, number) of every transformer in diffusers' names
PLACES = [
    *(f"down_blocks.{level}.attentions.0" for level in (0, 1)),
    *(f"up_blocks.{level}.attentions.{number}" for level in (0, 1) for number in (0, 1)),
]


def link_pack(base):
    """Have the server on a base directory find the nodes of tests/packs."""
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    os.symlink(ROOT / "tests" / "packs" / TINY, base / "custom_nodes" / TINY, target_is_directory=True)


def write(models):
    """Motion modules, MotionLoRAs, the adapter and SparseCtrl, by their published names."""
    folder = models / "animatediff_models"
    folder.mkdir(exist_ok=True)
    for name in ("mm_sd15_v3.safetensors", "mm_sd15_v2.safetensors"):
        shutil.copy(demo.MODELS / folder.name / MOTION, folder / name)
    torch.save(motion_files.tensors(motion_files.CONFIGS["SDXL beta"]), folder / "mm_sdxl_v10_beta.ckpt")
    folder = models / "animatediff_motion_lora"
    folder.mkdir(exist_ok=True)
    for name, pocket in MOTION_LORAS.items():
        tensors = load_file(demo.MODELS / folder.name / f"{pocket}.safetensors")
        torch.save({"state_dict": tensors}, folder / name)
    torch.save(adapter(), models / "loras" / "v3_sd15_adapter.ckpt")
    folder = models / "controlnet"
    folder.mkdir(exist_ok=True)
    torch.save({"controlnet": sparse_files.of_pocket()}, folder / "v3_sd15_sparsectrl_rgb.ckpt")


def adapter(rank=4):
    """A domain adapter for the pocket's UNet."""
    shapes = loras.shapes_of(demo.MODELS / "SD" / "pocket-sd.safetensors")
    text = {}
    for width, key in ((64, "input_blocks.1.1."), (96, "input_blocks.3.1.")):
        for number in "12":
            for name in "qkv":
                text[width, number, name] = shapes[
                    f"{UNET}{key}transformer_blocks.0.attn{number}.to_{name}.weight"
                ]
            text[width, number, "out"] = shapes[
                f"{UNET}{key}transformer_blocks.0.attn{number}.to_out.0.weight"
            ]
    generator, made = torch.Generator().manual_seed(9), {}
    for place in PLACES:
        way, level, *_ = place.split(".")[0], int(place.split(".")[1])
        width = (64, 96)[level if way == "down_blocks" else 1 - level]
        for number in "12":
            for name in ("q", "k", "v", "out"):
                rows, columns = text[width, number, name]
                stem = f"{place}.transformer_blocks.0.attn{number}.processor.to_{name}_lora"
                made[f"{stem}.down.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
                made[f"{stem}.up.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
    return made


def with_tiny_sdxl(graph):
    """A prompt with a tiny SDXL, its prompts and the pocket's VAE in the place of sd_xl_base_1.0."""
    for number, node in list(graph.items()):
        if node["class_type"] == "CheckpointLoaderSimple" and "sd_xl" in node["inputs"]["ckpt_name"]:
            texts = [key for key, other in graph.items() if other["class_type"] == "CLIPTextEncode"]
            moved = {(text, 0): ["tiny", place + 1] for place, text in enumerate(texts)}
            moved |= {(number, 0): ["tiny", 0], (number, 2): ["vae", 2]}
            graph = {key: other for key, other in graph.items() if key not in (number, *texts)}
            for other in graph.values():
                links = {name: value for name, value in other["inputs"].items() if isinstance(value, list)}
                other["inputs"] |= {name: moved.get(tuple(value), value) for name, value in links.items()}
            graph["tiny"] = {"class_type": "TinySDXL", "inputs": {"seed": 5}}
            graph["vae"] = {"class_type": "KinetographPocketLoader", "inputs": dict(POCKET)}
    return graph
