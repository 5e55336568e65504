"""Random numbers of a training: of one sample at one step for one purpose, whoever draws them.

So a run does not depend on how many processes share it, nor on where it was stopped.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def generator(purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator of its own for a purpose, such as "noise", and numbers such as sample, step and seed."""
    digest = hashlib.blake2b(repr((purpose, *numbers)).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little") & (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def normal(shape: tuple[int, ...], purpose: str, *numbers: int) -> Tensor:
    """Standard normal numbers, fp32."""
    return torch.randn(shape, generator=generator(purpose, *numbers))


def uniform(purpose: str, *numbers: int) -> float:
    """One number in 0..1."""
    return torch.rand((), generator=generator(purpose, *numbers)).item()


@contextmanager
def seeded(purpose: str, *numbers: int) -> Iterator[None]:
    """Layers that are made on the CPU meanwhile start with numbers of this purpose; those of others go on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(purpose, *numbers).initial_seed())
        yield


def order(count: int, epoch: int, seed: int) -> list[int]:
    """The samples of a data set in the order of an epoch."""
    return torch.randperm(count, generator=generator("order", epoch, seed)).tolist()
