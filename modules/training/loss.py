"""What is asked of the network: one number for each clip, in fp32, whatever the network computed in.

Noise, targets and the way back to the clip are those of `modules/noise.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..noise import Noise
from . import learned_range
from .draws import uniform
from .levels import place_of
from .recipe import Loss
from .subject import Noisy

# Below this timestep EasyAnimate's snr_loss asks for the clip instead of the noise.
LOW_TIMESTEPS = 250
# MotionDirector (arXiv 2310.08465, sec. 4.2): what the error of the frame is weighed with beside the anchor's
DEBIAS = 2**0.5

# sample, visit and seed of a clip, which decide its random numbers
Key = tuple[int, ...]


def losses(
    output: Tensor, noisy: Noisy, noise: Noise, settings: Loss, keys: Sequence[Key] | None = None
) -> Tensor:
    """The loss (b,) of each clip.

    `output` has the shape of `noisy.x0`; for a learned range twice its channels, the noise before the range. `keys`,
    one a clip, are needed for `debias`. ValueError for another shape, and as `check_loss`.
    """
    check_loss(noise, settings)
    # finer than fp32 stays as it is
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if settings.kind == "learned_range":
        return _of_learned_range(output, noisy, noise, settings)
    _check_shape(output, noisy, 1)
    if settings.kind == "denoised":
        errors = noise.denoised(noisy.x, output, noisy.sigma) - settings.target_scale * noisy.x0
        return clip_weights(noise, noisy.sigma, settings) * mean_square(errors)
    return _of_target(output, noisy, noise, settings, keys)


def check_loss(noise: Noise, settings: Loss) -> None:
    """ValueError for a loss that means nothing for the noise process, or for parts that do not fit together."""
    kind, weight = settings.kind, settings.weight
    weights = {"target": ("none", "min_snr", "bounded"), "denoised": ("none", "edm", "root_edm")}
    allowed = weights.get(kind, ("none",))
    if weight not in allowed:
        raise ValueError(
            f'loss.weight is "{weight}"; with loss.kind "{kind}" it is one of {", ".join(allowed)}.'
        )
    needs_epsilon = {
        'loss.kind "learned_range"': kind == "learned_range",
        'loss.weight "bounded"': weight == "bounded",
        "loss.x0_below_250": settings.x0_below_250,
    }
    for name, asked in needs_epsilon.items():
        if asked and noise.prediction != "epsilon":
            raise ValueError(
                f"{name} is for a model that gives the noise, this one gives {noise.prediction}."
            )
    if kind == "learned_range" or settings.x0_below_250:
        learned_range.check_timesteps(noise)
    of_target = {
        "loss.motion_sub": settings.motion_sub > 0,
        "loss.debias": settings.debias,
    }
    for name, asked in of_target.items():
        if asked and kind != "target":
            raise ValueError(f'{name} is for loss.kind "target", not "{kind}".')
    if settings.x0_below_250 and kind == "denoised":
        raise ValueError(
            'loss.x0_below_250 is not for loss.kind "denoised", which asks for the clip at every level.'
        )
    if settings.target_scale != 1 and kind != "denoised":
        raise ValueError(f'loss.target_scale is for loss.kind "denoised", not "{kind}".')


def clip_weights(noise: Noise, sigma: Tensor, settings: Loss) -> Tensor:
    """The weight (b,) of each clip by its level (b,)."""
    if settings.weight == "min_snr":
        # Hang et al. (arXiv 2303.09556), sec. 3.4: an error of the noise is sigma^2 times less than one of the clip, an
        # error of v sigma^2 / (sigma^2 + 1) times
        snr = sigma**-2
        per_clip = snr if noise.prediction == "epsilon" else snr + 1
        return snr.clamp(max=settings.snr_gamma) / per_clip
    if settings.weight == "bounded":
        # that of an error of v, up to a bound
        return (sigma**2 + 1).clamp(max=settings.most_weight)
    if settings.weight == "none":
        return torch.ones_like(sigma)
    # Karras et al. (arXiv 2206.00364), table 1 with sigma_data 1
    edm = (sigma**2 + 1) / sigma**2
    return edm if settings.weight == "edm" else edm.sqrt()


def mean_square(errors: Tensor) -> Tensor:
    """The mean square (b,) of each clip's errors (b, ...)."""
    return errors.square().flatten(1).mean(1)


def _of_target(
    output: Tensor, noisy: Noisy, noise: Noise, settings: Loss, keys: Sequence[Key] | None
) -> Tensor:
    target = noise.target(noisy.x0, noisy.noise, noisy.sigma)
    errors = output - target
    loss = (
        _below_250(mean_square(errors), output, noisy, noise)
        if settings.x0_below_250
        else mean_square(errors)
    )
    if settings.motion_sub and noisy.timesteps > 2:
        movement = mean_square(errors.diff(dim=noisy.time_axis))
        loss = (1 - settings.motion_sub) * loss + settings.motion_sub * movement
    if settings.debias:
        loss = loss + mean_square(DEBIAS * errors - _anchors(errors, noisy, keys))
    return clip_weights(noise, noisy.sigma, settings) * loss


def _anchors(errors: Tensor, noisy: Noisy, keys: Sequence[Key] | None) -> Tensor:
    """One random frame of each clip, for all its frames to be compared with."""
    if keys is None or len(keys) != len(errors):
        raise ValueError(f"loss.debias draws a frame of each of {len(errors)} clips: give the key of each.")
    axis = noisy.time_axis
    frames = [place_of(uniform("anchor", *key), noisy.timesteps) for key in keys]
    rows = [clip.narrow(axis - 1, frame, 1) for clip, frame in zip(errors, frames, strict=True)]
    return torch.stack(rows)


def _of_learned_range(output: Tensor, noisy: Noisy, noise: Noise, settings: Loss) -> Tensor:
    _check_shape(output, noisy, 2)
    epsilon, spread = output.chunk(2, dim=noisy.channel_axis)
    loss = mean_square(epsilon - noisy.noise)
    if settings.x0_below_250:
        loss = _below_250(loss, epsilon, noisy, noise)
    return loss + learned_range.bits(epsilon, spread, noisy, noise)


def _below_250(loss: Tensor, epsilon: Tensor, noisy: Noisy, noise: Noise) -> Tensor:
    """EasyAnimate's snr_loss: at the low timesteps the error (b,) of the clip stands in for that of the noise."""
    of_clip = mean_square(noise.denoised(noisy.x, epsilon, noisy.sigma) - noisy.x0)
    return torch.where(noise.timestep(noisy.sigma) < LOW_TIMESTEPS, of_clip, loss)


def _check_shape(output: Tensor, noisy: Noisy, times: int) -> None:
    wanted = list(noisy.x0.shape)
    wanted[noisy.channel_axis] *= times
    if list(output.shape) != wanted:
        raise ValueError(
            f"The network gave {tuple(output.shape)} for clips of {tuple(noisy.x0.shape)}; this loss needs "
            f"{tuple(wanted)}."
        )
