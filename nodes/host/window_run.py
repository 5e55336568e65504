"""Context windows on a MODEL: put there, checked against the clip before the first step, and given prompts and noise."""

from typing import Any

import comfy.sampler_helpers
import torch
from comfy.context_windows import create_prepare_sampling_wrapper
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .guards import clip_length
from .windows import HANDLER, PROMPT, ClipHandler, Windowing

KEY = "kinetograph_windows"


def put_windows(model: Any, windowing: Windowing, node: str) -> Any:
    """A clone of a MODEL that is sampled in windows; ValueError where another node cut it before."""
    if HANDLER in model.model_options:
        raise ValueError(f"The model for {node} has context windows already: keep one of the two nodes.")
    clone = model.clone()
    clone.model_options[HANDLER] = ClipHandler(windowing)
    create_prepare_sampling_wrapper(clone)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _begin)
    if windowing.freenoise:
        clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, _shuffle_noise)
    return clone


def _begin(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An OUTER_SAMPLE wrapper: what does not fit is told, and prompts are put in, before the first step."""
    guider = executor.class_obj
    handler = guider.model_options.get(HANDLER)
    if not isinstance(handler, ClipHandler):
        raise ValueError(
            "Another node put its own context windows over those of Context Windows: keep one of the two."
        )
    windowing = handler.windowing
    frames = clip_length(guider, noise, windowing.axis)
    sigmas = args[2]
    check_run(windowing, frames, noise.shape[handler.dim], len(sigmas) - 1)
    if windowing.prompts:
        guider.conds["positive"] = _with_prompts(guider.conds.get("positive"), windowing.prompts)
    guider.model_options[HANDLER] = handler.for_run(frames)
    return executor(noise, *args, **kwargs)


def check_run(windowing: Windowing, frames: int, total: int, steps: int) -> None:
    """ValueError where `total` latent frames, `frames` a clip, do not fit the windows or the prompts."""
    plan = windowing.plan
    if total % frames:
        raise ValueError(
            f"Context Windows cuts whole clips: the latent holds {total} frames, the conditioning is for clips of {frames}. "
            "Give both nodes the same latent."
        )
    if plan.closed_loop and frames <= plan.length:
        raise ValueError(
            f"A closed loop needs a clip longer than one window: got {frames} latent frames, a window has {plan.length}. Make "
            "the clip longer, or set length in Context Windows lower."
        )
    lists = [plan.windows(frames, step) for step in range(max(steps, 1))]
    for window in (window for windows in lists for window in windows):
        if len(window) < frames and windowing.rule.missing(len(window)):
            raise ValueError(
                f"{windowing.label} takes windows of a multiple of {windowing.rule.multiple} latent frames, but "
                f"{plan.schedule} leaves one of {len(window)} at the end: choose standard_static, or another overlap."
            )
    count = len(windowing.prompts)
    followed = {prompt for windows in lists if count for prompt in plan.prompts(windows, frames, count)}
    if len(followed) < count:
        raise ValueError(
            f"More prompts than windows can follow: got {count}, a clip of {frames} latent frames has {len(lists[0])} "
            f"window{'s' if len(lists[0]) > 1 else ''} of {min(plan.length, frames)}, so that prompt "
            f"{min(set(range(count)) - followed) + 1} would be in none. Connect fewer prompts, make the clip longer, or "
            "set length lower or overlap higher in Context Windows."
        )


def _with_prompts(positive: Any, prompts: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The positive conditioning once for each prompt: what a prompt carries counts, the rest stays."""
    if positive is None or len(positive) != 1:
        raise ValueError(
            f"With prompts in Context Windows the positive conditioning is one: got {len(positive or ())} combined. Take "
            "Conditioning (Combine) and the like away from it, or connect them as prompts."
        )
    entries = []
    for number, prompt in enumerate(prompts):
        if comfy.sampler_helpers.cond_has_hooks(prompt):
            raise ValueError(
                f"Prompt {number + 1} of Context Windows has hooks, which the sampler cannot know of: put them on the "
                "positive conditioning."
            )
        for entry in comfy.sampler_helpers.convert_cond(prompt):
            entries.append({**positive[0], **entry, PROMPT: number})
    return entries


def _shuffle_noise(
    executor: Any, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor,
    *args: Any, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """A SAMPLER_SAMPLE wrapper: FreeNoise, each clip by the same order, so that one taken out of a batch has it, too."""
    handler = extra_args["model_options"][HANDLER]
    order = handler.windowing.plan.noise_order(handler.clip_frames, extra_args.get("seed") or 0)
    clips = range(0, noise.shape[handler.dim], handler.clip_frames)
    rows = torch.tensor([first + number for first in clips for number in order], device=noise.device)
    return executor(
        guider, sigmas, extra_args, callback, noise.index_select(handler.dim, rows), *args, **kwargs
    )
