"""Tiny random motion modules in the layouts of the published files, for the tiny image MODELs of `host/pictures.py`."""

from math import prod

import torch
from safetensors.torch import save_file

from kinetograph.modules.families.animatediff import MOTION_MODULE
from kinetograph.modules.families.animatediff.config import MotionConfig
from kinetograph.modules.layers.temporal_block import sinusoid_table

CHANNELS = (32, 64, 128, 128)
CONFIGS = {
    "v1": MotionConfig(CHANNELS, rows=24, version="v1"),
    "v2": MotionConfig(CHANNELS, mid=True, version="v2"),
    "v3": MotionConfig(CHANNELS, version="v3"),
    "SDXL beta": MotionConfig(CHANNELS[:3], version="SDXL beta"),
    "AnimateLCM": MotionConfig(CHANNELS, mid=True, rows=64, tables=0, version="AnimateLCM"),
}
# of the small UNet
SMALL = {
    "v1": MotionConfig(CHANNELS[:2], layers=1, rows=24, version="v1"),
    "v2": MotionConfig(CHANNELS[:2], layers=1, mid=True, version="v2"),
    "v3": MotionConfig(CHANNELS[:2], layers=1, version="v3"),
}
# the published sizes
PUBLISHED = {
    "v1": MotionConfig(rows=24, version="v1"),
    "v2": MotionConfig(mid=True, version="v2"),
    "v3": MotionConfig(version="v3"),
    "SDXL beta": MotionConfig((320, 640, 1280), version="SDXL beta"),
    "AnimateLCM": MotionConfig(mid=True, rows=64, tables=0, version="AnimateLCM"),
}


def tensors(config, seed=3, part=MOTION_MODULE):
    """{key: tensor} of a file of this config in the original names; positions are the sinusoids of every release."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, shape in part.shapes(config).items():
        if key.endswith(".pe"):
            made[key] = sinusoid_table(*shape[1:])[None]
        else:
            # as in a network that was trained: norms near one, linear layers of unit gain
            spread = 0.2 if len(shape) == 1 else prod(shape[1:]) ** -0.5
            value = torch.randn(shape, generator=generator) * spread
            made[key] = value + 1 if "norm" in key and key.endswith("weight") else value
    return made


def write(path, config, seed=3):
    """A motion-module file in the original names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors(config, seed), path)
    return path


def write_all(folder, configs=CONFIGS, size="tiny"):
    """{version: path} of one file for each release."""
    return {
        name: write(folder / f"{size}-{name.replace(' ', '-')}.safetensors", config)
        for name, config in configs.items()
    }


def randomise(module, seed=0):
    """Every weight drawn as in a network that was trained, none zero; position tables stay."""
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    with torch.no_grad():
        for value in module.parameters():
            spread = 0.2 if value.ndim == 1 else value[0].numel() ** -0.5
            value.copy_(torch.randn(value.shape, generator=generator) * spread)
        for layer in module.modules():
            if isinstance(layer, kinds):
                layer.weight.add_(1)
    return module.eval().requires_grad_(False)
