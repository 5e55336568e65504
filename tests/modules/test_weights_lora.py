"""LoRA files of every naming, and those that fit in part or not at all."""

import pytest
import torch

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.lora import read_lora, renamed
from kinetograph.tests.checkpoints import BY_NAME

PART = FAMILIES[0].parts["diffusion_model"]
MODEL = BY_NAME["cogvideox-2b"].shapes
LINEARS = {key.removesuffix(".weight"): shape for key, shape in MODEL.items() if len(shape) == 2}
NATIVE = PART.dialects["comfy"].reverse()


def native(module):
    return NATIVE.find(module + ".weight")[1].removesuffix(".weight")


def kohya(module):
    return "lora_unet__" + module.replace(".", "_")


NAMINGS = {
    "diffusers": (lambda module: "transformer." + module, "lora_A.weight", "lora_B.weight"),
    "peft": (lambda module: "base_model.model." + module, "lora_A.default.weight", "lora_B.default.weight"),
    "kohya": (kohya, "lora_down.weight", "lora_up.weight"),
    "single underscore": (
        lambda module: kohya(module).replace("__", "_"),
        "lora_down.weight",
        "lora_up.weight",
    ),
    "host": (lambda module: "diffusion_model." + module, "lora_A.weight", "lora_B.weight"),
    "host, native": (
        lambda module: "diffusion_model." + native(module),
        "lora_down.weight",
        "lora_up.weight",
    ),
    "bare": (lambda module: module, "lora_A.weight", "lora_B.weight"),
}


def lora(naming="kohya", modules=LINEARS, rank=4):
    name, down, up = NAMINGS[naming]
    shapes = {}
    for module in modules:
        out, into = LINEARS[module]
        shapes |= {f"{name(module)}.{down}": (rank, into), f"{name(module)}.{up}": (out, rank)}
        if "kohya" in naming:
            shapes[f"{name(module)}.alpha"] = ()
    return shapes


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_means_the_same_modules(naming):
    shapes = lora(naming)
    found = read_lora("lora.safetensors", shapes, PART, MODEL)
    assert (found.matched, found.unmatched, found.rank) == (len(LINEARS), (), 4)
    assert len(set(found.renames.values())) == len(shapes)
    for module in LINEARS:
        assert f"diffusion_model.{module}.lora_A.weight" in found.renames.values()


@pytest.mark.parametrize("name, count", [("2b", 245), ("5b", 341), ("1.5-5b", 342)])
def test_a_lora_can_reach_as_many_modules_as_the_published_ones(name, count):
    """Every linear: 8 in each block and 5 around them; 1.5 cuts its patches with one more."""
    assert sum(len(shape) == 2 for shape in BY_NAME[f"cogvideox-{name}"].shapes.values()) == count


def test_tensors_get_the_names():
    shapes = lora(modules=["proj_out"])
    found = read_lora("lora.safetensors", shapes, PART, MODEL)
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    assert set(renamed(tensors, found)) == {
        f"diffusion_model.proj_out.{word}" for word in ("lora_A.weight", "lora_B.weight", "alpha")
    }


STRANGE = {
    "lora_unet_down_blocks_0_attn.lora_down.weight": (4, 320),
    "lora_unet_down_blocks_0_attn.lora_up.weight": (320, 4),
}


def test_no_match_is_an_error_even_when_partial_is_allowed():
    for shapes in (STRANGE, {}, {key: (*shape, 3) for key, shape in lora().items()}):
        for allowed in (False, True):
            with pytest.raises(CheckpointError, match=r"lora\.safetensors changes nothing"):
                read_lora("lora.safetensors", shapes, PART, MODEL, allowed)


def test_half_a_match_needs_permission():
    shapes = {**lora(modules=["proj_out"]), **STRANGE}
    with pytest.raises(CheckpointError, match="3 keys fit, 2 do not .*down_blocks"):
        read_lora("lora.safetensors", shapes, PART, MODEL)
    found = read_lora("lora.safetensors", shapes, PART, MODEL, allow_partial=True)
    assert (found.matched, set(found.unmatched)) == (1, set(STRANGE))


@pytest.mark.parametrize("change", [(0, (5, 1920)), (1, (63, 4)), (0, None), (1, None)])
def test_wrong_shapes_and_lonely_halves_do_not_match(change):
    shapes = lora("diffusers", ["proj_out", "time_embedding.linear_1"])
    place, shape = change
    key = [key for key in shapes if "proj_out" in key][place]
    shapes = {**shapes, key: shape} if shape else {other: shapes[other] for other in shapes if other != key}
    found = read_lora("lora.safetensors", shapes, PART, MODEL, allow_partial=True)
    assert found.matched == 1
    assert all("proj_out" in key for key in found.unmatched)


@pytest.mark.parametrize(
    "more",
    [
        {"lora_unet__proj_out.dora_scale": (64, 1)},
        {"lora_unet__proj_out.lora_mid.weight": (4, 4)},
        {"transformer.proj_out.lora_A.weight": (4, 1920)},
    ],
    ids=["DoRA", "LoCon", "named twice"],
)
def test_a_module_of_which_a_part_is_unknown_is_left_out_whole(more):
    """Its known halves alone would be another change than the one that was trained."""
    shapes = {**lora(modules=["proj_out", "time_embedding.linear_1"]), **more}
    found = read_lora("lora.safetensors", shapes, PART, MODEL, allow_partial=True)
    assert found.modules == ("time_embedding.linear_1",)
    assert len(found.unmatched) == 4 and all("proj_out" in key for key in found.unmatched)
