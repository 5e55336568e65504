"""SparseCtrl's files: their keys in both spellings, their sizes, and what they are told apart by."""

from math import prod

import pytest
import torch

from kinetograph.modules.families import ANIMATEDIFF, FAMILIES
from kinetograph.modules.families.animatediff import SPARSE_CONTROL
from kinetograph.modules.families.animatediff.sparse import SparseConfig

# (tensors, millions of values) as published, and what diffusers' own class is built with
PUBLISHED = {"rgb": (486, 496.956, (4, True)), "scribble": (500, 498.028, (3, False))}


def reference(condition):
    from diffusers import SparseControlNetModel

    channels, simple = PUBLISHED[condition][2]
    with torch.device("meta"):
        return SparseControlNetModel(
            conditioning_channels=channels,
            use_simplified_condition_embedding=simple,
            cross_attention_dim=768,
            motion_max_seq_length=32,
        )


@pytest.mark.parametrize("condition", PUBLISHED)
def test_keys_and_shapes_are_those_of_diffusers(condition):
    shapes = {key: tuple(value.shape) for key, value in reference(condition).state_dict().items()}
    count, millions, _ = PUBLISHED[condition]
    assert len(shapes) == count and sum(map(prod, shapes.values())) / 1e6 == pytest.approx(millions, abs=1e-3)
    renames = SPARSE_CONTROL.dialects["diffusers"].rename(shapes)
    ours = {renames[key]: shape for key, shape in shapes.items()}
    assert ours == SPARSE_CONTROL.shapes(SparseConfig(condition=condition))
