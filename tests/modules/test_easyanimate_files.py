"""EasyAnimate v1's published files by what is known of them: README of its tag v1, and its own rules."""

import json

import pytest
import torch

from kinetograph.benchmarks import peers
from kinetograph.modules.doctor import main
from kinetograph.tests.checkpoints import BY_NAME, KEYS, SIZES, read_key_list, write_sparse

LORA = read_key_list(KEYS / "loras" / "easyanimate-portrait.txt").shapes
GIB = 2**30
UP, DOWN = ".lora_up.weight", ".lora_down.weight"


def values(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


@pytest.mark.parametrize(
    ("name", "published"), [("easyanimate-v1-mm", 4.1), ("easyanimate-portrait", 2.3), ("lora", 654.0 / 1024)]
)
def test_the_lists_are_as_large_as_the_files(name, published):
    """Sizes as `ls -h` rounds them up; the LoRA alone is in half precision, and its names are long."""
    shapes, dtype = (LORA, "F16") if name == "lora" else (BY_NAME[name].shapes, "F32")
    size = values(shapes) * SIZES[dtype] / GIB
    assert published - (0.1 if dtype == "F32" else 0.3 / 1024) < size <= published


def test_the_lora_changes_every_linear_layer_of_pixart_and_of_t5s_blocks():
    """As easyanimate/utils/lora_utils.py names them: no patch convolution, no table, no motion module."""
    with torch.device("meta"):
        transformer = peers.load_diffusers().PixArtTransformer2DModel(sample_size=64, caption_channels=4096)
    wanted = {
        f"lora_unet__{name.replace('.', '_')}": tuple(layer.weight.shape)
        for name, layer in transformer.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    assert len(wanted) == 286
    wanted |= {
        f"lora_te_{key.removesuffix('.weight').replace('.', '_')}": shape
        for key, shape in BY_NAME["t5-v1_1-xxl-encoder"].shapes.items()
        if ".block." in key and "layer_norm" not in key and "relative" not in key
    }
    assert len(wanted) == 286 + 168
    stems = [key.removesuffix(UP) for key in LORA if key.endswith(UP)]
    made = {stem: (LORA[stem + UP][0], LORA[stem + DOWN][1]) for stem in stems}
    assert made == wanted and {len(LORA[stem + ".alpha"]) for stem in made} == {0}
    assert {LORA[stem + DOWN][0] for stem in made} == {LORA[stem + UP][1] for stem in made} == {128}


def test_the_doctor_takes_the_lora_whole(tmp_path, capsys):
    path = write_sparse(tmp_path / "any.safetensors", LORA, "F16")
    assert main([str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["keys"], told["matched"], told["unexpected"]) == ("pixart", 1362, 1362, 0)
    assert told["lora"]["ranks"] == [128]
    assert (told["lora"]["modules"], told["lora"]["text_modules"]) == (286, 168)


@pytest.mark.parametrize("name", ["pixart-512", "pixart-512-original"])
def test_the_model_that_paints_into_a_clip_is_refused_by_name(name, tmp_path, capsys):
    """In both namings: its first layer takes noise, a mask and a clip."""
    first = "x_embedder.proj.weight" if name.endswith("original") else "pos_embed.proj.weight"
    path = write_sparse(tmp_path / "any.safetensors", {**BY_NAME[name].shapes, first: (1152, 9, 2, 2)})
    assert main([str(path)]) == 1
    text = capsys.readouterr().out
    assert "EasyAnimate v1's model for painting into a clip" in text and "not supported" in text
