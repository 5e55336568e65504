"""Clips that do not fill the temporal patches of their network: sampled longer, and cut again."""

from typing import Any

import torch
from torch import Tensor

from .guards import check_windows


def pad_to_patch(executor: Any, noise: Tensor, latent_image: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sample whole temporal patches: latents added behind the clip are cut off afterwards.

    CogVideoX 1.5 cuts two latent frames into one patch: 81 frames are 21 latents, 22 are sampled. Its own code
    decodes the first 21 (zai-org/CogVideo, sat/sample_video.py: (T - 1) // 2 pairs after the first latent), so
    that the clip starts with the latent that stands for one frame and that holds the image. diffusers drops the
    first one instead, and with it the image. An OUTER_SAMPLE wrapper of the host.
    """
    guider = executor.class_obj
    recipe = guider.model_patcher.model.recipe
    rule = recipe.family.network.frame_rule(recipe.config)
    check_windows(guider.model_options.get("context_handler"), noise.shape[2], rule, recipe.label)
    rule.check(recipe.label, noise.shape[2], recipe.family.network.grid)
    added = rule.missing(noise.shape[2])
    if not added:
        return executor(noise, latent_image, *args, **kwargs)
    sampler, sigmas, denoise_mask, *rest = args
    seed = kwargs.get("seed", rest[2] if len(rest) > 2 else 0) or 0  # after callback and disable_pbar
    shape = (*noise.shape[:2], added, *noise.shape[3:])
    more = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=noise.dtype)
    noise = torch.cat([noise, more.to(noise.device)], dim=2)
    latent_image = repeat_last(latent_image, added)
    if "latent_shapes" in kwargs:
        kwargs["latent_shapes"] = [latent_image.shape]
    if denoise_mask is not None:
        denoise_mask = repeat_last(denoise_mask, added)
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, *rest, **kwargs)[:, :, :-added]


def repeat_last(x_bcthw: Tensor, count: int) -> Tensor:
    """The clip with its last latent frame `count` times more."""
    return torch.cat([x_bcthw, x_bcthw[:, :, -1:].expand(-1, -1, count, -1, -1)], dim=2)
