"""Sampling whole clips with the host's samplers and schedulers, by any MODEL that `describe` knows."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...modules.noise import EDMNoise, TableNoise
from ...modules.sampling import guidance as rules
from ...modules.sampling import samplers
from ...modules.sampling.contrast import enhance_contrast
from ...modules.sampling.previews import filmstrip
from ...modules.sampling.schedules import (
    animatelcm_svd_levels,
    edm_levels,
    lcm_levels,
    tdm_levels,
    trailing_levels,
)
from ..host import progress, sampling
from ..host.description import VideoModel, describe
from ..host.latents import check_clips, clip_frames, read_latent

GUIDANCE = ("constant", "dynamic cosine", "per-frame linear")
# the schedulers of ours, beside the host's, in the order of the widget
SCHEDULERS = ("edm", "trailing", "animatelcm_svd", "lcm_50", "lcm_100", "tdm")
EDM, TRAILING, ANIMATELCM_SVD, LCM_50, LCM_100, TDM = SCHEDULERS
# those over continuous levels, by the ends of their range
CONTINUOUS = {EDM: edm_levels, ANIMATELCM_SVD: animatelcm_svd_levels}
# those over a level for each timestep
DISCRETE = {
    TRAILING: trailing_levels,
    LCM_50: partial(lcm_levels, original=50),
    LCM_100: partial(lcm_levels, original=100),
    TDM: tdm_levels,
}
LONG_CLIP = ("off", "on")


@dataclass(frozen=True)
class Settings:
    """The widgets of Video Sampler."""

    seed: int
    steps: int
    # the choice of a DynamicCombo with its parts
    guidance: dict[str, Any]
    sampler_name: str
    scheduler: str
    denoise: float
    preview: bool
    # the same
    long_clip: dict[str, Any] = field(default_factory=dict)


def sample(
    model: Any, positive: Any, negative: Any, latent: dict[str, Any], settings: Settings, node: str
) -> dict[str, Any]:
    """The LATENT once sampled. ValueError for a MODEL, a latent or a conditioning that do not fit one another."""
    described = describe(model, node)
    total = len(read_latent(latent, described.grid, described.label))
    frames = None
    if described.grid.frames_on_batch:
        frames, _ = clip_frames(latent)
        check_clips(frames, positive, negative)
        model, positive, negative = sampling.with_clips(model, frames, positive, negative, total=total)
    if settings.long_clip.get("sequential_cfg"):
        model = sampling.one_at_a_time(model)
    levels = levels_of(described, settings.scheduler, settings.steps, settings.denoise)
    sampler = sampler_of(model, settings.sampler_name)
    plan = sampling.Plan(sampler, settings.scheduler, settings.steps, settings.denoise, settings.seed, levels)
    guider = guider_of(model, settings.guidance, settings.steps, frames)
    callback = step_callback(model, described, settings.steps, settings.preview, frames)
    samples = sampling.sample_latents(model, latent, positive, negative, guider, plan, callback)
    return {**latent, "samples": finish(samples, settings.long_clip, frames)}


def guider_of(model: Any, options: dict[str, Any], steps: int, frames: int | None) -> Any:
    """The host's guider for a choice of the guidance DynamicCombo.

    `frames`: those of a clip where they lie on the batch axis, else None.
    """
    kind = options["guidance"]
    if kind == "constant":
        return sampling.constant_guider(model, options["cfg"])
    if kind == "dynamic cosine":
        rule = rules.dynamic_cosine(options["cfg"], steps, options["clock"])
    else:
        rule = rules.per_frame_linear(options["min_cfg"], options["max_cfg"])
    return sampling.ScheduledGuider(model, rule, frames)


def sampler_of(model: Any, name: str) -> Any:
    """The host's sampler of that name, or one of ours wrapped for the host."""
    if name not in samplers.SAMPLERS:
        return name

    def start(x, denoise, sigmas, terminal, report, seed):
        draw = samplers.seeded_draws(x, seed)
        return samplers.SAMPLERS[name](x, samplers.Run(denoise, sigmas, terminal, draw, report))

    return sampling.wrap_sampler(model, start)


def levels_of(described: VideoModel, scheduler: str, steps: int, denoise: float) -> list[float] | None:
    """The noise levels of a scheduler of ours; None for the host's. ValueError for a model without such levels."""
    noise = described.noise
    if (continuous := CONTINUOUS.get(scheduler)) is not None:
        if not isinstance(noise, EDMNoise):
            raise ValueError(
                f"Scheduler {scheduler} is for models with continuous noise levels, such as SVD: {described.label} "
                f"has a discrete schedule, choose simple or {TRAILING}, or for a few-step model its own: {LCM_100} "
                f"for AnimateLCM, {TDM} for TDM."
            )
        return continuous(steps, noise.sigma_min, noise.sigma_max, denoise)
    if (discrete := DISCRETE.get(scheduler)) is not None:
        if not isinstance(noise, TableNoise):
            raise ValueError(
                f"Scheduler {scheduler} is for models with a noise level for each of 1000 timesteps, such as CogVideoX "
                f"and SD1.5: {described.label} has none, choose {EDM} for SVD, {ANIMATELCM_SVD} for AnimateLCM-SVD, or "
                "a scheduler of ComfyUI."
            )
        return discrete(noise.sigmas(), steps, denoise)
    return None


def first_clip(x: Tensor, frames: int | None) -> Tensor:
    """The first clip of a batch of latents as (c, t, h, w)."""
    return x[0] if frames is None else x[:frames].movedim(0, 1)


def finish(samples: Tensor, long_clip: dict[str, Any], frames: int | None) -> Tensor:
    """Latents with the contrast that the long-clip options ask for, clip by clip."""
    if long_clip.get("long_clip", "off") == "off":
        return samples
    clips = [clip.movedim(0, 1) for clip in samples] if frames is None else list(samples.split(frames))
    scale, equalise = long_clip["contrast_scale"], long_clip["equalise_frames"]
    done = [enhance_contrast(clip, scale, equalise) for clip in clips]
    return torch.cat(done) if frames else torch.stack([clip.movedim(0, 1) for clip in done])


def step_callback(
    model: Any, described: VideoModel, steps: int, preview: bool, frames: int | None
) -> sampling.StepCallback:
    """Called by the sampler after each step: stops at the first bad value, moves the bar, shows a filmstrip."""
    bar, latents = progress.steps(steps), described.latents

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        # A sum is one pass without a mask; only an odd one is looked at closer.
        if not math.isfinite(float(denoised.sum())) and not bool(denoised.isfinite().all()):
            raise ValueError(non_finite_message(model, described.label, step + 1, total))
        shown = None
        if preview:
            shown = filmstrip(first_clip(denoised, frames), latents.rgb_factors, latents.rgb_bias)
        bar.advance(1, shown)

    return callback


def non_finite_message(model: Any, label: str, step: int, total: int) -> str:
    """Why a run went non-finite, as far as it can be told: a damaged weight, or the dtype's range."""
    start = f"{label} gave a NaN or infinity at step {step} of {total}"
    if (key := sampling.non_finite_weight(model)) is not None:
        return f"{start}: the weight {key} is not finite. The checkpoint is damaged: get the file again."
    dtype = str(sampling.inference_dtype(model)).removeprefix("torch.")
    remedy = "choose weight_dtype bf16 or fp32 in the loader" if dtype != "float32" else "lower the guidance"
    return f"{start} while computing in {dtype}, with finite weights: {remedy}, or check LoRAs and prompts."
