"""What is trained, as the loop sees it: a network of any family, its noise, and how it is told of a clip."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..families.family import Request
from ..noise import Noise
from .draws import normal

# what the network takes beside noise and timestep, by its own names
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A network that is trained, or in which a part is."""

    # id of its family; "animatediff" for a picture model of the host
    family: str
    label: str
    network: nn.Module
    noise: Noise
    # from latents as the VAE gave them to those of unit variance
    scale: float
    frames_on_batch: bool
    # what the network is told of one clip; ValueError for what it does not take
    conditions: Callable[[Request], Arguments]
    # (latents as the network sees them, timesteps, arguments): its output, a row for each row of latents
    predict: Callable[[Tensor, Tensor, Arguments], Tensor]
    # of the network; None for the host's
    config: Any = None
    # whether it is told a text's one row, `Example.pooled`, too
    takes_pooled: bool = False
    # modules that are computed anew in the backward pass, and sharded one by one
    blocks: tuple[nn.Module, ...] = ()


def ask(network: Any, x: Tensor, timestep: Tensor, arguments: Arguments) -> Tensor:
    """The answer of a network of this pack, with what it tells of its variance behind; "concat" goes beside x."""
    named = dict(arguments)
    context, concat = named.pop("context", None), named.pop("concat", None)
    if concat is not None:
        x = torch.cat([x, concat.to(x)], dim=1)
    more: dict[str, Any] = {"with_variance": True} if network.tells_variance else {}
    return network(x, timestep, context, None, **named, **more)


@dataclass(frozen=True)
class Example:
    """One clip, encoded: what the cache holds of it."""

    # of the item in its data set, for random numbers
    index: int
    # of the latents as the VAE gave them: (c, t, h, w), or (f, c, h, w) where frames lie on the batch axis
    mean: Tensor
    # None: the mean is the latent
    log_variance: Tensor | None = None
    # text features (l, d), or CLIP tokens of SVD's picture (1, d)
    context: Tensor | None = None
    # latents of the picture or of the known clip, unscaled, with a frame axis as `mean` has it
    image: Tensor | None = None
    # (1, t, h, w) over latent cells, 1 where the clip is made anew
    mask: Tensor | None = None
    # latents of a clip to follow, unscaled
    control: Tensor | None = None
    # SDXL's text as one row (1, d)
    pooled: Tensor | None = None
    # of the family's own names: fps, motion_bucket_id, noise_aug_strength, width, height
    numbers: Mapping[str, float] = field(default_factory=dict)
    # how often it was seen before: each visit draws anew
    visit: int = 0

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What must be equal for examples to go through a network side by side."""
        parts = (self.mean, self.context, self.image, self.mask, self.control)
        return tuple(None if part is None else tuple(part.shape) for part in parts)


@dataclass(frozen=True)
class Noisy:
    """Clips of equal shapes at their noise levels, all as (b, ...) of scaled latents in fp32."""

    # (b, c, t, h, w), or (b, f, c, h, w) where frames lie on the batch axis
    x0: Tensor
    noise: Tensor
    # one level a clip (b,)
    sigma: Tensor
    # in the coordinates of `modules/noise.py`, before `scaled`
    x: Tensor
    # which of the two axes 1 and 2 is time
    time_axis: int

    @property
    def timesteps(self) -> int:
        """Latent frames."""
        return self.x0.shape[self.time_axis]

    @property
    def channel_axis(self) -> int:
        """The other one."""
        return 3 - self.time_axis


def sample_latent(example: Example, seed: int) -> Tensor:
    """The latent of an example: a draw from the posterior, or its mean where there is none."""
    if example.log_variance is None:
        return example.mean.float()
    noise = normal(tuple(example.mean.shape), "posterior", example.index, example.visit, seed)
    return example.mean.float() + noise * (0.5 * example.log_variance.float()).exp()
