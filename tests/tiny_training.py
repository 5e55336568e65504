"""Tiny subjects of every family with random weights, and examples in memory, for tests of the trainer."""

from functools import partial

import torch

from kinetograph.modules.families import GRID_MODULES, PIXART, SVD
from kinetograph.modules.families.cogvideox import FAMILY as COGVIDEOX
from kinetograph.modules.families.cogvideox.config import CogVideoXConfig
from kinetograph.modules.families.easyanimate.config import GridConfig
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.layers.attention import attend
from kinetograph.modules.training.recipe import Data, Files, Levels, Loss, PartChoice, Recipe, Steps
from kinetograph.modules.training.subject import Example, Subject, ask


def recipe(part="lora", loss=None, levels=None, data=None, **steps):
    """A recipe of few steps."""
    choice = part if isinstance(part, PartChoice) else PartChoice(part, rank=2, alpha=4.0)
    return Recipe(
        "tiny",
        Files("none"),
        choice,
        data or Data("none"),
        levels or Levels(),
        loss or Loss(),
        Steps(**{"lr": 1e-2, "total": 6, **steps}),
    )


def randomise(network, seed=0):
    """Weights of unit gain."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=dice) * spread)
    return network


def cogvideox(attention=attend):
    config = CogVideoXConfig(
        **{
            "num_layers": 2,
            "num_heads": 2,
            "head_dim": 16,
            "text_dim": 8,
            "time_embed_dim": 16,
            "max_text_tokens": 6,
        }
    )
    return _subject(COGVIDEOX, config, attention)


def svd(attention=attend):
    config = SVDConfig(
        channels=(32, 32, 64, 64), head_dim=16, context_dim=8, adm_dim=24, num_frames=4, width=64, height=64
    )
    return _subject(SVD, config, attention)


def pixart(motion=False, attention=attend):
    config = PixArtConfig(num_layers=2, num_heads=2, head_dim=32, text_dim=8)
    subject = _subject(PIXART, config, attention)
    if motion:
        modules = randomise(GRID_MODULES.part.build(GridConfig(2, 64), attention=attention), 5)
        modules.put_into(subject.network)
    return subject


def _subject(family, config, attention=attend):
    network = randomise(family.parts["diffusion_model"].build(config, attention=attention)).requires_grad_(
        False
    )
    records = family.network

    blocks = getattr(network, "transformer_blocks", None) or network.numbered_layers()
    return Subject(
        family.id,
        family.label,
        network,
        records.noise(config),
        records.latents(config).scale,
        records.grid.frames_on_batch,
        partial(records.conditions, config),
        partial(ask, network),
        blocks=tuple(blocks),
    )


class Counting:
    """PyTorch's attention, with its calls counted."""

    calls = 0

    def __call__(self, *inputs, **options):
        self.calls += 1
        return attend(*inputs, **options)


class Examples(list):
    """Examples in memory."""

    empty = None


def examples(subject, count=5, frames=4, seed=3, cells=8):
    """Random clips for a subject."""
    dice = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=dice)

    def one(index):
        if subject.family == "svd":
            shape, context, image = (frames, 4, cells, cells), draw(1, 8), draw(1, 4, cells, cells)
        else:
            shape, context, image = (
                ((frames, 4, cells, cells) if subject.frames_on_batch else (16, frames, cells, cells)),
                draw(6, 8),
                None,
            )
        return Example(index, draw(*shape), draw(*shape) - 2, context, image)

    clips = Examples(one(index) for index in range(count))
    if subject.family != "svd":
        clips.empty = draw(6, 8)
    return clips
