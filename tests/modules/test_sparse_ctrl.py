"""SparseCtrl's files: their keys in every spelling, and what they are told apart by."""

import pytest

from kinetograph.modules.families import ANIMATEDIFF, FAMILIES
from kinetograph.modules.families.animatediff import SPARSE_CONTROL
from kinetograph.modules.families.animatediff.sparse import SparseConfig
from kinetograph.modules.weights.detect import detect, sure_parts
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.tests import sparse_files
from kinetograph.tests.checkpoints import BY_NAME, header

# list -> condition, dialect, millions of values
LISTS = {
    "animatediff-sparsectrl-rgb": ("rgb", "original", 496.956),
    "animatediff-sparsectrl-scribble": ("scribble", "original", 498.028),
    "animatediff-sparsectrl-rgb-comfy": ("rgb", "comfy", 496.956),
}


def shapes_of(name):
    return BY_NAME[name].shapes


def find(shapes, families=FAMILIES):
    return detect(header(shapes), families)


def to_diffusers(key):
    """diffusers' name of a key of AnimateDiff."""
    head, found, rest = key.partition(sparse_files.MODULE)
    for theirs, ours in sparse_files.RENAMES:
        rest = rest.replace(ours, theirs)
    return head + found + rest.replace(".temporal_transformer", "")


@pytest.mark.parametrize("name", LISTS)
def test_published_files_are_known_key_by_key(name):
    condition, dialect, millions = LISTS[name]
    finding = find(shapes_of(name)).check()
    assert (finding.kind, finding.variant, finding.dialect) == (
        "sparse_control",
        f"SparseCtrl {condition}",
        dialect,
    )
    assert finding.config == SparseConfig(condition=condition)
    assert finding.matched == len(shapes_of(name)) and finding.num_dropped == 0
    assert finding.parameters / 1e6 == pytest.approx(millions, abs=1e-3)
    assert set(SPARSE_CONTROL.shapes(finding.config)) == set(finding.renames.values())


def test_names_of_diffusers_are_the_same_weights():
    shapes = shapes_of("animatediff-sparsectrl-scribble")
    renamed = {to_diffusers(key): shape for key, shape in shapes.items()}
    finding, original = find(renamed).check(), find(shapes)
    assert finding.dialect == "diffusers" and len(renamed) == len(shapes)
    assert {key: finding.renames[to_diffusers(key)] for key in shapes} == original.renames


@pytest.mark.parametrize("wrapping", ["controlnet.", "module.", "controlnet.module."])
def test_names_around_it_do_not_matter(wrapping):
    shapes = {wrapping + key: shape for key, shape in shapes_of("animatediff-sparsectrl-rgb").items()}
    assert find(shapes).check().variant == "SparseCtrl rgb"
    assert sure_parts(shapes, FAMILIES) == {("animatediff", "sparse_control")}


def test_position_tables_may_be_left_out():
    shapes = shapes_of("animatediff-sparsectrl-rgb")
    left = {key: shape for key, shape in shapes.items() if not key.endswith(".pe")}
    config = find(left).check().config
    assert len(left) == len(shapes) - 8 and (config.tables, config.rows) == (0, 32)


@pytest.mark.parametrize(
    "lacking",
    [
        "down_blocks.3.motion_modules.1.",
        "controlnet_mid_block.",
        "mid_block.attentions.0.proj_in.bias",
        "conv_out.",
    ],
)
def test_a_file_that_lacks_weights_is_refused(lacking):
    shapes = shapes_of("animatediff-sparsectrl-scribble")
    with pytest.raises(CheckpointError, match="missing|misshapen"):
        find({key: shape for key, shape in shapes.items() if lacking not in key}).check()


def test_other_widths_are_refused():
    shapes = dict(shapes_of("animatediff-sparsectrl-rgb"))
    shapes["controlnet_cond_embedding.weight"] = (320, 4, 3, 3)
    with pytest.raises(CheckpointError, match=r"1 misshapen \(input_hint_block.0.weight: \(320, 4, 3, 3\)"):
        find(shapes).check()


def test_a_control_net_without_motion_is_none():
    shapes = shapes_of("animatediff-sparsectrl-scribble")
    assert find({key: shape for key, shape in shapes.items() if "motion" not in key}).part is None
    for name in ("svd-diffusers-unet", "svd-xt"):
        assert find(shapes_of(name), (ANIMATEDIFF,)).kind != "sparse_control"
