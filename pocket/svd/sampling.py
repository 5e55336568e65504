"""Clips from pictures with nothing but the UNet: Euler steps over Karras' noise levels, guidance frame by frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..parts import pack
from ..shapes import GROUND
from .latents import CELL, COLOUR_GAIN, SCALE, latents_of
from .measures import path_of, rank_correlation, speed_error, speed_of
from .world import SlidingClip, draw_frames

if TYPE_CHECKING:
    from ...modules.noise import EDMNoise

NUMBER_WIDTH = 64  # of the sinusoid of each micro-condition


@dataclass(frozen=True)
class Told:
    """What the UNet is told about each clip: a CLIP token, the picture's raw latents, sinusoids of numbers."""

    context_b1d: Tensor
    image_bchw: Tensor
    y_bd: Tensor

    def silent(self) -> "Told":
        """The same without the picture."""
        return Told(torch.zeros_like(self.context_b1d), torch.zeros_like(self.image_bchw), self.y_bd)


def noise_process() -> "EDMNoise":
    """The family's own."""
    pack()
    from kinetograph.modules.families.svd.config import SIGMA_MAX, SIGMA_MIN
    from kinetograph.modules.noise import EDMNoise

    return EDMNoise(SIGMA_MIN, SIGMA_MAX)


def numbers_told(clips: list[SlidingClip]) -> Tensor:
    """Sinusoids (b, 3 * 64) of fps_id, motion_bucket_id and noise_aug_strength."""
    pack()
    from kinetograph.modules.layers.positions import sinusoid

    numbers = torch.tensor([clip.conditions for clip in clips])
    return sinusoid(numbers.flatten(), NUMBER_WIDTH).view(len(clips), -1)


def told_of(clips: list[SlidingClip], vision: nn.Module) -> Told:
    """What the first frames of clips tell; noise is added to what is encoded, not to what CLIP sees."""
    from .vision import prepare

    pictures = torch.cat([draw_frames(clip, 1) for clip in clips])
    strengths = torch.tensor([clip.augmentation for clip in clips]).view(-1, 1, 1, 1)
    noisy = pictures + strengths * torch.randn_like(pictures)
    with torch.no_grad():
        token = vision(prepare(pictures)).image_embeds[:, None]
    return Told(token, latents_of(noisy) / SCALE, numbers_told(clips))


def velocity(unet: nn.Module, x_btchw: Tensor, sigma_b: Tensor, told: Told) -> Tensor:
    """v (b, t, 4, h, w) of noisy scaled latents, one noise level a clip."""
    frames = x_btchw.shape[1]
    scaled, timestep_b = noise_process().network_input(x_btchw, sigma_b)
    image = told.image_bchw[:, None].expand(-1, frames, -1, -1, -1)
    rows = torch.cat([scaled, image], 2).flatten(0, 1)
    v = unet(rows, timestep_b, told.context_b1d, y=told.y_bd, num_video_frames=frames)
    return v.unflatten(0, (-1, frames))


def clean_of(x_btchw: Tensor, v_btchw: Tensor, sigma_b: Tensor) -> Tensor:
    """The denoised estimate."""
    return noise_process().denoised(x_btchw, v_btchw, sigma_b)


@dataclass(frozen=True)
class Course:
    """How clips are drawn."""

    frames: int
    steps: int
    guidance: tuple[float, float]  # first and last frame
    seed: int = 1


@torch.no_grad()
def sample(unet: nn.Module, told: Told, course: Course) -> Tensor:
    """Scaled latents (b, t, 4, h, w)."""
    pack()
    from kinetograph.modules.sampling.schedules import edm_levels

    b, c, h, w = told.image_bchw.shape
    process = noise_process()
    levels = edm_levels(course.steps, process.sigma_min, process.sigma_max)
    dice = torch.Generator().manual_seed(course.seed)
    x = torch.randn(b, course.frames, c, h, w, generator=dice) * (process.sigma_max**2 + 1) ** 0.5
    scale = torch.linspace(*course.guidance, course.frames).view(1, -1, 1, 1, 1)
    for here, after in zip(levels, levels[1:], strict=False):
        sigma = torch.full((b,), here)
        v = velocity(unet, x, sigma, told)
        if course.guidance != (1.0, 1.0):
            free = velocity(unet, x, sigma, told.silent())
            v = free + scale * (v - free)
        clean = clean_of(x, v, sigma)
        x = clean + (x - clean) / here * after
    return x


def mean_colours(z_tchw: Tensor) -> Tensor:
    """Frames (t, h, w, 3) in 0..1 of one pixel a cell, from scaled latents."""
    return (z_tchw[:, :3] / COLOUR_GAIN + torch.tensor(GROUND).view(3, 1, 1)).permute(0, 2, 3, 1)


def measure(z_btchw: Tensor, clips: list[SlidingClip]) -> dict[str, float]:
    """How latents drawn for clips do: path, speed, first frame. Errors in pixels, of latents in their unit."""
    paths = [path_of(mean_colours(z), CELL) for z in z_btchw]
    speeds = [speed_of(path, clip) for path, clip in zip(paths, clips, strict=True)]
    true = torch.cat([latents_of(draw_frames(clip, 1)) for clip in clips])
    whole = torch.stack([latents_of(draw_frames(clip, z_btchw.shape[1])) for clip in clips])
    return {
        "rank": rank_correlation(speeds, [clip.speed for clip in clips]),
        "speed_off": sum(abs(s - c.speed) for s, c in zip(speeds, clips, strict=True)) / len(clips),
        "step_off": sum(speed_error(p, c) for p, c in zip(paths, clips, strict=True)) / len(clips),
        "first_rms": (z_btchw[:, 0] - true).square().mean().sqrt().item(),
        "rms": (z_btchw - whole).square().mean().sqrt().item(),
    }
