"""Small moving clips for tests of video files, and how close two clips are."""

import math

import numpy as np
import torch


def make_clip(frames=17, height=64, width=64):
    """(f, h, w, 3) floats in 0..1: a disc moving over smooth ramps that change with time."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    shots = []
    for index in range(frames):
        time = index / max(1, frames - 1)
        disc = ((x - 0.2 - 0.6 * time) ** 2 + (y - 0.5) ** 2 < 0.03).float()
        shots.append(torch.stack([0.1 + 0.8 * disc, 0.2 + 0.5 * x, 0.7 * (0.3 + 0.7 * time) * y], dim=-1))
    return torch.stack(shots)


def as_bytes(clip):
    return (clip * 255).round().to(torch.uint8).numpy()


def psnr(ours, theirs):
    """Decibels between two uint8 clips; infinite when equal."""
    error = np.mean((np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
