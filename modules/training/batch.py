"""From encoded clips to what a network is called with, and to what is asked of its answer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..families.family import Request, Shared
from . import draws
from .levels import draw_level
from .recipe import Data, Levels
from .subject import Arguments, Example, Noisy, Subject, sample_latent


def alike(examples: Iterable[Example], at_once: int) -> list[list[Example]]:
    """Examples of equal shapes together, at most so many, in the order of the first of each kind."""
    kinds: dict[Any, list[Example]] = {}
    for example in examples:
        kinds.setdefault(example.shapes, []).append(example)
    return [kind[i : i + at_once] for kind in kinds.values() for i in range(0, len(kind), at_once)]


def drop(example: Example, empty: Tensor | None, data: Data, seed: int) -> Example:
    """An example whose caption, or picture, is left out at some visits.

    A caption becomes the empty one, `empty` (l, d). Of SVD's picture one draw decides (pixeli99/SVD_Xtend): tokens go
    for r < 2p, latents for p <= r < 3p, both for a third of these.
    """
    if empty is not None and draws.uniform("caption", example.index, example.visit, seed) < data.dropout:
        return replace(example, context=empty)
    if data.image_dropout and example.image is not None and example.context is not None:
        r, p = draws.uniform("picture", example.index, example.visit, seed), data.image_dropout
        context = torch.zeros_like(example.context) if r < 2 * p else example.context
        image = torch.zeros_like(example.image) if p <= r < 3 * p else example.image
        return replace(example, context=context, image=image)
    return example


def add_noise(subject: Subject, examples: Sequence[Example], levels: Levels, seed: int, device: Any) -> Noisy:
    """Clips of equal shapes at the noise levels of this visit."""
    latents = [sample_latent(example, seed) for example in examples]
    noises = [
        draws.normal(tuple(z.shape), "noise", e.index, e.visit, seed)
        for z, e in zip(latents, examples, strict=True)
    ]
    sigma = torch.stack(
        [
            torch.as_tensor(draw_level(subject.noise, levels, e.index, e.visit, seed), dtype=torch.float32)
            for e in examples
        ]
    )
    x0, noise = torch.stack(latents) * subject.scale, torch.stack(noises)
    x = subject.noise.noisy(x0, noise, sigma)
    x0, noise, sigma, x = (part.to(device) for part in (x0, noise, sigma, x))
    return Noisy(x0, noise, sigma, x, time_axis=1 if subject.frames_on_batch else 2)


def answer(subject: Subject, x: Tensor, sigma_b: Tensor, arguments: Arguments, dtype: torch.dtype) -> Tensor:
    """All that the network says of noisy clips (b, ...), in fp32: PixArt's more channels than they have."""
    if not subject.frames_on_batch:
        seen, timestep = subject.noise.network_input(x, sigma_b)
        return subject.predict(seen.to(dtype), timestep, arguments).float()
    frames = x.shape[1]
    seen, timestep = subject.noise.network_input(x.flatten(0, 1), sigma_b.repeat_interleave(frames))
    return subject.predict(seen.to(dtype), timestep, arguments).float().unflatten(0, (-1, frames))


def output_of(
    subject: Subject, x: Tensor, sigma_b: Tensor, arguments: Arguments, dtype: torch.dtype
) -> Tensor:
    """The same without what PixArt says of its variance: in the shape of the clips."""
    axis = 2 if subject.frames_on_batch else 1
    return answer(subject, x, sigma_b, arguments, dtype).narrow(axis, 0, x.shape[axis])


def tell(subject: Subject, examples: Sequence[Example], device: Any, dtype: torch.dtype) -> Arguments:
    """What the network is told of clips of equal shapes: of each by itself, then side by side."""
    clips = [dict(subject.conditions(request_of(subject, example))) for example in examples]
    for clip, example in zip(clips, examples, strict=True):
        if subject.takes_pooled and example.pooled is not None:
            clip["pooled"] = example.pooled
    return {name: _beside([clip[name] for clip in clips], subject, device, dtype) for name in clips[0]}


def request_of(subject: Subject, example: Example) -> Request:
    """One clip, as a sampler would ask for it."""
    shape, on_batch = tuple(example.mean.shape), subject.frames_on_batch

    def row(part: Tensor | None) -> Tensor | None:
        return part if part is None or on_batch else part[None]

    return Request(
        noise_shape=shape if on_batch else (1, *shape),
        context=None if example.context is None else example.context[None],
        image_latents=row(example.image),
        clip_frames=shape[0] if on_batch else None,
        numbers=example.numbers,
        mask=row(example.mask),
        control_latents=row(example.control),
    )


def _beside(values: list[Any], subject: Subject, device: Any, dtype: torch.dtype) -> Any:
    """One argument for several clips: rows of each behind those of the one before, numbers as they are."""
    first = values[0]
    if isinstance(first, Shared):
        values = [value.value for value in values]
    if not isinstance(values[0], Tensor):
        if any(value != first for value in values):
            raise ValueError(f"Clips of one batch differ in what they are told: {values}.")
        return first
    rows = torch.cat(values).to(device)
    return rows.to(dtype) if rows.is_floating_point() else rows
