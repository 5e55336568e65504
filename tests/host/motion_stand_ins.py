"""What takes the place of published files in AnimateDiff's templates: the pocket SD's, and tiny ones of no training.

ComfyUI's checkpoint loader takes SD1.5 and SDXL at their published width alone, 2 and 7 GB: prompts get another loader.
"""

from itertools import product

import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.families.animatediff.config import MotionConfig
from kinetograph.tests import motion_files, sparse_files
from kinetograph.tests.saved import loras
from kinetograph.tools import demo, prompts

POCKET = {"model": "SD/pocket-sd.safetensors"}
# channels of its levels, and of its text tokens
WIDTH, CONTEXT = 64, 32
MOTION = "pocket-motion.safetensors"
MOTION_LORAS = {"v2_lora_PanLeft.ckpt": "pocket-pan-left", "v2_lora_ZoomIn.ckpt": "pocket-pan-right"}
# of the pocket's UNet: (place, number) of every transformer in diffusers' names
PLACES = [
    *(f"down_blocks.{level}.attentions.0" for level in (0, 1)),
    *(f"up_blocks.{level}.attentions.{number}" for level in (0, 1) for number in (0, 1)),
]


def write(models):
    """Motion modules, MotionLoRAs, the adapter and SparseCtrl, by their published names."""
    folder = models / "animatediff_models"
    folder.mkdir(exist_ok=True)
    for name in ("v3_sd15_mm.ckpt", "mm_sd_v15_v2.ckpt"):
        torch.save(load_file(demo.MODELS / folder.name / MOTION), folder / name)
    torch.save(motion_files.tensors(motion_files.CONFIGS["SDXL beta"]), folder / "mm_sdxl_v10_beta.ckpt")
    folder = models / "animatediff_motion_lora"
    folder.mkdir(exist_ok=True)
    for name, pocket in MOTION_LORAS.items():
        tensors = load_file(demo.MODELS / folder.name / f"{pocket}.safetensors")
        torch.save({"state_dict": tensors}, folder / name)
    torch.save(adapter(), models / "loras" / "v3_sd15_adapter.ckpt")
    few_steps(models)
    folder = models / "controlnet"
    folder.mkdir(exist_ok=True)
    torch.save({"controlnet": sparse_files.of_pocket()}, folder / "v3_sd15_sparsectrl_rgb.ckpt")


def adapter(rank=4):
    """A LoRA with the names of the domain adapter, for the pocket's UNet."""
    generator, made = torch.Generator().manual_seed(9), {}
    for place, number, name in product(PLACES, (1, 2), ("q", "k", "v", "out")):
        columns = CONTEXT if number == 2 and name in "kv" else WIDTH
        stem = f"{place}.transformer_blocks.0.attn{number}.processor.to_{name}_lora"
        made[f"{stem}.down.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
        made[f"{stem}.up.weight"] = torch.randn(WIDTH, rank, generator=generator) * 0.1
    return made


def few_steps(models):
    """Motion modules of no training, Lightning's and, as torch saves it, AnimateLCM's with its LoRA."""
    sizes = {"channels": (WIDTH, WIDTH), "layers": 1, "mid": True}
    folder = models / "animatediff_models"
    motion_files.write(
        folder / "animatediff_lightning_4step_comfyui.safetensors", MotionConfig(**sizes, version="v2")
    )
    config = MotionConfig(**sizes, rows=64, tables=0, version="AnimateLCM")
    torch.save(motion_files.tensors(config), folder / "AnimateLCM_sd15_t2v.ckpt")
    linear = {"input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (WIDTH, WIDTH)}
    lora = loras.pairs(linear, "lora_unet_", ("lora_down", "lora_up"), 4)
    save_file(lora, models / "loras" / "AnimateLCM_sd15_t2v_lora.safetensors")


def with_pocket_sd(graph):
    """A prompt with the pocket SD, for SDXL a tiny one, in the place of a checkpoint."""
    graph = with_tiny_sdxl(graph)
    for loader in prompts.nodes_of(graph, "CheckpointLoaderSimple"):
        loader |= {"class_type": "KinetographPocketLoader", "inputs": dict(POCKET)}
    return graph


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
