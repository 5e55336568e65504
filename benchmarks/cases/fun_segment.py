"""One segment of a long video with CogVideoX-Fun InP beside the same composed from diffusers' classes.

All that Video Continue does for a segment: the last frames of the one before and their mask are encoded, the
transformer is sampled with guidance, the latents are decoded and the frames joined with those that went before. The
reference follows aigc-apps/VideoX-Fun (pipeline_cogvideox_fun_inpaint, and the long mode of predict_i2v): diffusers
itself has no InP pipeline.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from .cog_dit import TEXT_TOKENS, real_tables

TOLERANCE = 1e-3  # float32 over all steps, which guidance and random weights enlarge
OVERLAP, FRAMES, CFG = 4, 17, 6.0
SCALE = 0.7  # of the latents of 5B
CHANNELS = 33  # noise, mask and the known clip
Segment = Callable[["Start"], Tensor]


@dataclass(frozen=True)
class Size:
    """Of one measurement: heads of the transformer's two blocks, widths of the VAE, latent cells a side, steps."""

    heads: int
    widths: tuple[int, ...]
    cells: int
    steps: int

    def __str__(self) -> str:
        side = 8 * self.cells
        return f"{FRAMES} frames {side}x{side}, {self.steps} steps, width {64 * self.heads}"


# two channels a group of its norms: with one, those of a flat picture are rounding alone
SMALL = Size(8, (64, 128, 128, 256), 6, 4)
LARGE = Size(48, (128, 256, 256, 512), 12, 10)


@dataclass(frozen=True)
class Start:
    """What a segment starts from: the frames before (f, h, w, 3) in 0..1, noise, and both prompts (2, l, d)."""

    tail: Tensor
    noise: Tensor
    context: Tensor


def times(setting: Setting) -> Iterator[Row]:
    """At a reduced width; in the full suite at the published one, with two blocks."""
    for size in (SMALL, LARGE) if setting.full else (SMALL,):
        segments, absent = build(size, setting)
        start = begin(size, setting.device)
        with torch.inference_mode():
            frames = {name: segment(start) for name, segment in segments.items()}
        parity = assert_parity(frames.pop(OURS), frames, TOLERANCE)
        works = {name: partial(segment, start) for name, segment in segments.items()}
        yield from time_rows(str(size), works, setting, parity, absent)


def build(size: Size, setting: Setting) -> tuple[dict[str, Segment], dict[str, str]]:
    """Both ways to make a segment, with the same random weights; the reference is absent without diffusers."""
    kinds = {
        "diffusion_model": {"num_heads": size.heads, "num_layers": 2, "in_channels": CHANNELS},
        "vae": {"block_out_channels": size.widths},
    }
    configs = {kind: ours.config("cogvideox", kind, **sizes) for kind, sizes in kinds.items()}
    models = {
        kind: ours.network("cogvideox", kind, config, torch.float32, setting.device)
        for kind, config in configs.items()
    }
    ours.draw(models["diffusion_model"], 0.05 if size == SMALL else 0.02)
    ours.draw(models["vae"])
    segment = partial(_ours, size, configs["diffusion_model"], models["diffusion_model"], models["vae"])
    made, absent = peers.build_present({"diffusers": _diffusers}, setting, size, models, setting.device)
    return {OURS: segment, **made}, absent


def begin(size: Size, device: str) -> Start:
    """Random frames, noise and prompts."""
    side, cells = 8 * size.cells, size.cells
    latents = (FRAMES - 1) // 4 + 1
    return Start(
        _draw(0, device, OVERLAP, side, side, 3).sigmoid(),
        _draw(1, device, 1, 16, latents, cells, cells),
        _draw(2, device, 2, TEXT_TOKENS, 4096),
    )


def _draw(seed: int, device: str, *shape: int) -> Tensor:
    return ours.noise(seed, torch.float32, device, *shape)


def _ours(size: Size, config: Any, transformer: Any, vae: Any, start: Start) -> Tensor:
    """(f, h, w, 3) in 0..1 of the segment, its first frames blended with those before."""
    from ...modules.families import COGVIDEOX
    from ...modules.sampling.samplers import Run, sample_ddim
    from ...modules.sampling.schedules import trailing_levels
    from ...modules.sampling.segments import Joiner

    diffusion = COGVIDEOX.diffusion
    assert diffusion is not None
    noise = diffusion.noise(config)
    channels = _known(config, vae, start, diffusion.conditions)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        level = torch.tensor([sigma], dtype=torch.float64)
        unit, timestep = noise.network_input(x, level)
        both = torch.cat([unit, channels], dim=1).expand(2, -1, -1, -1, -1)
        without, with_prompt = transformer(both, timestep.expand(2).to(x.device), start.context).chunk(2)
        return noise.denoised(x, without + CFG * (with_prompt - without), level)

    sigmas = trailing_levels(noise.sigmas(), size.steps)
    x = noise.noisy(torch.zeros_like(start.noise), start.noise, torch.tensor(sigmas[0]))
    run = Run(denoise, sigmas, noise.terminal, lambda: start.noise, lambda *_: None)
    pieces = vae.decode_stream(sample_ddim(x, run) / SCALE)
    joiner = Joiner(OVERLAP)
    joiner.tail = start.tail
    joined = list(joiner.join((piece[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) for piece in pieces))
    return torch.cat([*joined, joiner.tail])


def _known(config: Any, vae: Any, start: Start, conditions: Callable[..., Any]) -> Tensor:
    """The channels beside the noise."""
    from ...modules.conditioning.inpaint import known_ends, latent_mask
    from ...modules.families.family import Request

    clip = known_ends(start.tail, None, FRAMES)
    latents = vae.encode(clip.pixels().permute(3, 0, 1, 2)[None] * 2 - 1)
    mask = latent_mask(clip.mask, latents.shape[2], 8)
    shape = tuple(start.noise.shape)
    return conditions(config, Request(shape, start.context, image_latents=latents, mask=mask))["concat"]


def _diffusers(size: Size, models: dict[str, Any], device: str) -> Segment:
    library = peers.load_diffusers()
    transformer = peers.place(
        partial(
            library.CogVideoXTransformer3DModel,
            num_attention_heads=size.heads,
            num_layers=2,
            in_channels=CHANNELS,
            out_channels=16,
            use_rotary_positional_embeddings=True,
        ),
        models["diffusion_model"].state_dict(),
        torch.float32,
        device,
    )
    vae = library.AutoencoderKLCogVideoX(block_out_channels=size.widths, scaling_factor=SCALE)
    vae = vae.to(device).eval()
    vae.load_state_dict(models["vae"].state_dict())
    scheduler = library.CogVideoXDDIMScheduler(
        snr_shift_scale=1.0,
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    return partial(_reference, size, transformer, vae, scheduler, _tables(size, device))


def _tables(size: Size, device: str) -> tuple[Tensor, Tensor]:
    """Rotations of 5B for a clip of this size."""
    import numpy as np

    from ...modules.layers import positions

    rows, columns = positions.crop_coordinates((size.cells // 2, size.cells // 2), (30, 45))
    angles = positions.rotary_angles(np.arange((FRAMES - 1) // 4 + 1), rows, columns, 64)
    return real_tables(positions.rotary_table(angles, torch.device(device)))


def _reference(
    size: Size, transformer: Any, vae: Any, scheduler: Any, tables: tuple[Tensor, Tensor], start: Start
) -> Tensor:
    """As `_ours`."""
    beside = _beside(vae, start).transpose(1, 2)
    x = start.noise.transpose(1, 2)
    scheduler.set_timesteps(size.steps, device=x.device)
    for timestep in scheduler.timesteps:
        both = torch.cat([x, beside], dim=2).expand(2, -1, -1, -1, -1)
        v = transformer(both, start.context, timestep.expand(2), image_rotary_emb=tables, return_dict=False)[
            0
        ]
        without, with_prompt = v.chunk(2)
        x = scheduler.step(without + CFG * (with_prompt - without), timestep, x, return_dict=False)[0]
    pixels = vae.decode(x.transpose(1, 2) / vae.config.scaling_factor).sample
    frames = (pixels[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1)
    share = torch.linspace(0, 1, OVERLAP + 1, device=x.device)[:-1].view(-1, 1, 1, 1)
    return torch.cat([start.tail * (1 - share) + frames[:OVERLAP] * share, frames[OVERLAP:]])


def _beside(vae: Any, start: Start) -> Tensor:
    """(1, 17, t, h, w): where the clip is known, and the clip there."""
    side = start.tail.shape[1]
    video = torch.full((1, 3, FRAMES, side, side), -1.0, device=start.tail.device)
    video[:, :, :OVERLAP] = start.tail.permute(3, 0, 1, 2) * 2 - 1
    known = torch.zeros(1, 1, FRAMES, side, side, device=start.tail.device)
    known[:, :, :OVERLAP] = 1
    latents = vae.encode(video).latent_dist.mode()
    cells = latents.shape[-2:]
    mask = [
        F.interpolate(part, size=(frames, *cells), mode="trilinear", align_corners=False)
        for part, frames in ((known[:, :, :1], 1), (known[:, :, 1:], latents.shape[2] - 1))
    ]
    return torch.cat([torch.cat(mask, dim=2), latents], dim=1) * vae.config.scaling_factor
