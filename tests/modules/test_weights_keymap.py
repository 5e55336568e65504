"""Key tables: holes, explicit drops, unknown keys, and the way back."""

import pytest

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.keymap import KeyMap, UnknownKeys
from kinetograph.tests.checkpoints import BY_NAME, KEY_LISTS, header

TABLE = KeyMap(
    ("blocks.{i}.q.{p}", "layers.{i}.to_q.{p}"),
    ("blocks.{i}.sub.{j}.scale", "layers.{i}.{j}.scale"),
    ("position_ids", None),
)


def test_holes_carry_numbers_and_weight_or_bias():
    keys = ["blocks.12.q.weight", "blocks.0.q.bias", "blocks.3.sub.4.scale", "position_ids"]
    ours = ["layers.12.to_q.weight", "layers.0.to_q.bias", "layers.3.4.scale", None]
    assert list(TABLE.rename(keys).values()) == ours


def test_the_first_row_that_fits_decides_whatever_its_numbers():
    table = KeyMap(
        ("a.{i}.7.{p}", "seven.{i}.{p}"),
        ("a.0.{j}.{p}", "zero.{j}.{p}"),
        ("a.{i}.{j}.{p}", "any.{i}.{j}.{p}"),
    )
    keys = ["a.0.7.weight", "a.0.8.bias", "a.10.71.weight", "a.1.7.bias"]
    assert list(table.rename(keys).values()) == [
        "seven.0.weight",
        "zero.8.bias",
        "any.10.71.weight",
        "seven.1.bias",
    ]


@pytest.mark.parametrize(
    "key",
    [
        "blocks.#.q.weight",
        "blocks.x.q.weight",
        "blocks.1.q.gamma",
        "blocks.1.q.weight.more",
        "a.blocks.1.q.weight",
        "blocks.1_q.bias",
    ],
)
def test_a_key_without_a_row_is_an_error_that_names_it(key):
    with pytest.raises(UnknownKeys, match="1 keys") as caught:
        TABLE.rename(["blocks.0.q.weight", key])
    assert caught.value.keys == (key,)
    assert key in str(caught.value)


def test_two_keys_for_one_weight_are_an_error():
    table = KeyMap(("a.{p}", "c.{p}"), ("b.{p}", "c.{p}"))
    with pytest.raises(ValueError, match=r"c\.weight"):
        table.rename(["a.weight", "b.weight"])


def test_a_repeated_hole_must_repeat_its_text():
    table = KeyMap(("a.{i}.{i}", "b.{i}"))
    assert table.rename(["a.4.4"]) == {"a.4.4": "b.4"}
    with pytest.raises(UnknownKeys):
        table.rename(["a.4.5"])


TRANSFORMERS = [
    listed for listed in KEY_LISTS if listed.kind == "diffusion_model" and "comfy" not in listed.name
]


def parts_of(listed):
    family = next(family for family in FAMILIES if family.id == listed.family)
    return family.parts[listed.kind]


@pytest.mark.parametrize("listed", TRANSFORMERS, ids=lambda listed: listed.name)
def test_every_dialect_goes_there_and_back(listed):
    finding = detect(header(listed.shapes), FAMILIES, listed.kind)
    ours = [key for key in finding.renames.values() if key is not None]
    for dialect, table in parts_of(listed).dialects.items():
        theirs = table.reverse().rename(ours)
        assert None not in theirs.values(), dialect
        back = table.rename(theirs.values())
        assert list(back.values()) == ours, dialect


def test_the_native_table_is_comfyuis():
    native = BY_NAME["cogvideox-1.5-5b-i2v-comfy-2-blocks"]
    table = parts_of(native).dialects["comfy"]
    renamed = table.rename(key.removeprefix("model.diffusion_model.") for key in native.shapes)
    diffusers = BY_NAME["cogvideox-1.5-5b-i2v"].shapes
    assert dict(zip(renamed.values(), native.shapes.values(), strict=True)) == {
        key: shape
        for key, shape in diffusers.items()
        if not key.startswith("transformer_blocks.") or key.split(".")[1] in "01"
    }
