"""Tiny random PixArt and EasyAnimate v1 files in the published layouts.

A diffusers folder (its VAE is TAESD: the host builds Stable Diffusion's at full width only), an original .pth, a motion
module, a personalised checkpoint, and a kohya LoRA of transformer and text encoder. 64x64 pixels and 6 frames fit.
"""

import json
import shutil

import torch
from safetensors.torch import save_file

from kinetograph.modules.families.easyanimate.config import GridConfig
from kinetograph.modules.families.easyanimate.model import GridModules
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.pixart.vae import TinyConfig, tiny_shapes

from . import tiny
from .tiny_svd import randomise

FRAMES, SIZE = 6, 64
# a width of three parts and of 32 groups
LAYERS, HEADS, WIDTH = 2, 2, 96
ROWS = 64
RANK = 4
TRANSFORMER = {
    "num_attention_heads": HEADS,
    "attention_head_dim": WIDTH // HEADS,
    "num_layers": LAYERS,
    "cross_attention_dim": WIDTH,
    "caption_channels": tiny.TEXT_WIDTH,
}
CONFIG = PixArtConfig(num_layers=LAYERS, num_heads=HEADS, head_dim=WIDTH // HEADS, text_dim=tiny.TEXT_WIDTH)
GRID = GridConfig(num_layers=LAYERS, width=WIDTH)


def transformer(sample_size=64, seed=0, **changes):
    """The reference; 128 for 1024-MS."""
    from diffusers import PixArtTransformer2DModel

    return randomise(PixArtTransformer2DModel(**{**TRANSFORMER, "sample_size": sample_size, **changes}), seed)


def modules(seed=3, config=GRID):
    """Motion modules, ours."""
    return randomise(GridModules(config), seed)


def vae_weights(seed=1):
    """TAESD with weights that keep pictures in range."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: torch.randn(shape, generator=generator) * (shape[1:].numel() ** -0.5 if len(shape) > 1 else 0.05)
        for key, shape in ((key, torch.Size(shape)) for key, shape in tiny_shapes(TinyConfig()).items())
    }
    return weights | {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}


def write_pipeline(folder, sample_size=64, seed=0, **changes):
    """A whole diffusers folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    transformer(sample_size, seed, **changes).save_pretrained(folder / "transformer")
    (folder / "vae").mkdir(exist_ok=True)
    save_file(vae_weights(seed + 1), folder / "vae" / "diffusion_pytorch_model.safetensors")
    tiny.text_encoder(seed + 2).save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    return folder


def position_table(width=WIDTH):
    """The `pe` of a published file, (1, rows, width), by the formula of "Attention is all you need"."""
    place = torch.arange(ROWS, dtype=torch.float32)[:, None]
    step = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    table = torch.zeros(1, ROWS, width)
    table[0, :, 0::2], table[0, :, 1::2] = torch.sin(place * step), torch.cos(place * step)
    return table


def write_modules(path, seed=3, config=GRID):
    """easyanimate_v1_mm.safetensors at this size, position tables included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = dict(modules(seed, config).state_dict())
    for block in range(config.num_layers):
        for attention in range(config.block.attentions):
            place = f"transformer_blocks.{block}.attn_temporal.temporal_transformer.transformer_blocks.0"
            weights[f"{place}.attention_blocks.{attention}.pos_encoder.pe"] = position_table(config.width)
    save_file(weights, path)
    return path


def write_personalized(path, seed=9, keep=lambda key: True, **changes):
    """A transformer of its own, or some keys of it; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value for key, value in transformer(seed=seed, **changes).state_dict().items() if keep(key)
    }
    heads = {"num_attention_heads": HEADS, **changes}["num_attention_heads"]
    save_file(weights, path, metadata={"config": json.dumps({"num_attention_heads": heads})})
    return path


def lora_weights(seed=11, text=True, scale=0.5, **changes):
    """A LoRA in EasyAnimate's way: every linear layer of the transformer, and of the T5 encoder."""
    generator = torch.Generator().manual_seed(seed)
    linears = {
        "lora_unet__" + name.replace(".", "_"): module
        for name, module in transformer(**changes).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if text:
        linears |= {
            "lora_te_" + name.replace(".", "_"): module
            for name, module in tiny.text_encoder().named_modules()
            if isinstance(module, torch.nn.Linear)
        }
    weights = {}
    for name, module in linears.items():
        rows, columns = module.weight.shape
        weights[f"{name}.lora_down.weight"] = torch.randn(RANK, columns, generator=generator) * columns**-0.5
        weights[f"{name}.lora_up.weight"] = torch.randn(rows, RANK, generator=generator) * scale
        weights[f"{name}.alpha"] = torch.tensor(RANK / 2)
    return weights


def write_lora(path, **told):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(lora_weights(**told), path)
    return path


def write_all(models):
    """Every kind of file below a models folder, where EasyAnimate's seed has them."""
    write_pipeline(models / "Diffusion_Transformer" / "tiny-pixart")
    write_pipeline(models / "Diffusion_Transformer" / "tiny-pixart-1024", sample_size=128)
    write_modules(models / "Motion_Module" / "tiny-easyanimate-mm.safetensors")
    write_personalized(models / "Motion_Module" / "tiny-portrait.safetensors")
    write_lora(models / "Motion_Module" / "tiny-portrait-lora.safetensors")


def write_published(models, config=GRID, **changes):
    """The files that the workflows of EasyAnimate v1 name, of these sizes, where they lie."""
    personal = models / "Personalized_Model"
    base = write_pipeline(models / "Diffusion_Transformer" / "PixArt-XL-2-512x512", **changes)
    # not in the folder that Model Download makes
    text = (base / "text_encoder").rename(base.with_name("text_encoder"))
    (models / "text_encoders").mkdir(exist_ok=True)
    shutil.copy(text / "model.safetensors", models / "text_encoders" / "t5xxl_fp16.safetensors")
    shutil.rmtree(text)
    write_modules(models / "Motion_Module" / "easyanimate_v1_mm.safetensors", config=config)
    write_personalized(personal / "easyanimate_portrait.safetensors", **changes)
    write_lora(personal / "easyanimate_portrait_lora.safetensors", **changes)
