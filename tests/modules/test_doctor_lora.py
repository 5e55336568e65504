"""The doctor on LoRA files: published ones by their counts and ranks, tiny ones, foreign ones, and the catalogue of lists."""

import json

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules import doctor
from kinetograph.modules.catalogue import LORA, Catalogue
from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families import COGVIDEOX, FAMILIES, SVD
from kinetograph.tests.checkpoints import BY_NAME, write_sparse
from kinetograph.tests.modules.test_catalogue import age

# (spec/releases: modules, rank, which networks, keys, bytes of values at 16 bits)
BLOCK = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out",
    "ff.0",
    "ff.2",
    "norm1.linear",
    "norm2.linear",
)
THEIRS = {"attn1.to_out": "attn1.to_out.0", "ff.0": "ff.net.0.proj", "ff.2": "ff.net.2"}


def linears(name):
    return {key.removesuffix(".weight"): s for key, s in BY_NAME[name].shapes.items() if len(s) == 2}


def fun(name, rank=128):
    """A reward LoRA of CogVideoX-Fun: every linear, in kohya's halves."""
    shapes = {}
    for module, (out, into) in linears(name).items():
        stem = "lora_unet__" + module.replace(".", "_")
        shapes |= {
            f"{stem}.lora_down.weight": (rank, into),
            f"{stem}.lora_up.weight": (out, rank),
            f"{stem}.alpha": (),
        }
    return shapes


def exvideo(rank=64):
    """ExVideo's for CogVideoX 5B: 336 modules in diffsynth's names."""
    sizes, shapes = linears("cogvideox-5b"), {}
    for i in range(42):
        for module in BLOCK:
            out, into = sizes[f"transformer_blocks.{i}.{THEIRS.get(module, module)}"]
            stem = f"blocks.{i}.{module}"
            shapes |= {
                f"{stem}.lora_A.default.weight": (rank, into),
                f"{stem}.lora_B.default.weight": (out, rank),
            }
    return shapes


def svd(rank=64):
    """A LoRA of all attention in the transformers over time, in diffusers' names."""
    sizes = linears("svd-diffusers-unet")
    shapes = {}
    for module, (out, into) in sizes.items():
        if "temporal_transformer_blocks" in module and ".attn" in module:
            shapes |= {
                f"unet.{module}.lora_A.weight": (rank, into),
                f"unet.{module}.lora_B.weight": (out, rank),
            }
    return shapes


FIVE = ["5B", "5B-I2V", "Fun-5B-InP", "Fun-5B-Control"]
FILES = {  # shapes: family, variants, dialect, rank, modules, keys, values
    "exvideo": (exvideo, "cogvideox", FIVE, "diffsynth", 64, 336, 672, 250_478_592),
    "reward 2b": (lambda: fun("cogvideox-2b"), "cogvideox", ["2B"], "Fun", 128, 245, 735, None),
    "reward 5b": (
        lambda: fun("cogvideox-5b"),
        "cogvideox",
        FIVE,
        "Fun",
        128,
        341,
        1023,
        1_007_435_776 // 2 + 341,
    ),
    "1.5": (lambda: fun("cogvideox-1.5-5b"), "cogvideox", ["1.5-5B"], "Fun", 128, 342, 1026, None),
    "svd": (svd, "svd", ["UNet"], "PEFT", 64, 128, 256, None),
}


@pytest.mark.parametrize("name", FILES)
def test_published_files_by_their_counts(name, tmp_path, capsys):
    shapes, family, variants, dialect, rank, modules, keys, values = FILES[name]
    path = write_sparse(tmp_path / "any.safetensors", shapes())
    assert main([str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["dialect"], told["folder"], told["node"]) == (
        *(family, dialect),
        *("loras", "KinetographLoRAStack"),
    )
    assert all(variant in told["variant"] for variant in variants)
    assert (told["keys"], told["matched"], told["unexpected"]) == (keys, keys, 0)
    assert told["lora"]["ranks"] == [rank] and told["lora"]["modules"] == modules
    assert told["lora"]["alphas"] == (
        [0.0] if dialect == "Fun" else []
    )  # the sparse file's values are a hole
    if values is not None:
        assert told["parameters"] == values
    text = examine(path).to_text()
    assert f"rank        {rank}\n" in text and "Complete: a LoRA for" in text
    assert ("LoRA Stack or ExVideo Patch" in text) == (name == "exvideo")
    assert "2B" not in told["variant"] or name == "reward 2b"


def test_alphas_ranks_and_t5_parts(tmp_path):
    tensors = {}
    for i, rank in enumerate((4, 4, 8)):
        stem = f"lora_unet__transformer_blocks_{i}_attn1_to_q"
        tensors[f"{stem}.lora_down.weight"] = torch.ones(rank, 3072)
        tensors[f"{stem}.lora_up.weight"] = torch.ones(3072, rank)
        tensors[f"{stem}.alpha"] = torch.tensor(float(2 + i))
    stem = "lora_te_encoder_block_3_layer_0_SelfAttention_q"
    tensors |= {
        f"{stem}.lora_down.weight": torch.ones(4, 4096),
        f"{stem}.lora_up.weight": torch.ones(4096, 4),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    report = examine(tmp_path / "a.safetensors")
    assert report.complete
    text = report.to_text()
    for words in (
        "4 (2 modules), 8 (1 modules)",
        "alpha       2 to 4",
        "T5 parts    1 modules",
        "0-2.attn1.to_q",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora_unet__transformer_blocks_0_attn1_to_q.dora_scale": (3072,)}, "a part is not known"),
        ({"something.else": (3,)}, "unexpected: something.else"),
        ({"lora_unet__transformer_blocks_0_attn1_to_q.lora_down.weight": (128, 5)}, "3 unexpected"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, change, words):
    path = write_sparse(tmp_path / "a.safetensors", {**fun("cogvideox-5b"), **change})
    assert main([str(path)]) == 1
    assert words in capsys.readouterr().out


def test_a_foreign_one_and_one_of_another_size(tmp_path):
    wan = {"diffusion_model.blocks.0.cross_attn.k.lora_A.weight": (4, 1536)}
    wan |= {"diffusion_model.blocks.0.cross_attn.k.lora_B.weight": (1536, 4)}
    report = examine(write_sparse(tmp_path / "wan.safetensors", wan))
    assert (report.to_json()["family"], report.complete) == ("unknown", False)
    assert "A LoRA for Wan that is not known here" in report.to_text()
    small = {key: tuple(n if n in (128, ()) else 32 for n in s) for key, s in fun("cogvideox-2b").items()}
    report = examine(write_sparse(tmp_path / "small.safetensors", small))
    assert report.to_json()["family"] == "cogvideox" and report.complete
    assert "LoRA for CogVideoX of another size" in report.to_json()["variant"]


def test_shapes_that_are_told_are_those_of_the_published_files():
    names = ("2b", "5b", "5b-i2v", "1.5-5b", "1.5-5b-i2v")
    part = COGVIDEOX.parts["diffusion_model"]
    for config, name in zip(part.published, names, strict=False):
        assert part.shapes(config) == BY_NAME[f"cogvideox-{name}"].shapes
    # those of Fun differ in what goes in
    for config in part.published[5:]:
        plain = part.shapes(
            part.published[{30: 0, 42: 1}[config.num_layers] if config.patch_size_t == 1 else 3]
        )
        theirs = part.shapes(config)
        assert {key for key in plain if plain[key] != theirs.get(key)} <= {"patch_embed.proj.weight"}
    (config,) = SVD.parts["diffusion_model"].published
    unet = {
        key.removeprefix("model.diffusion_model.")
        for key in BY_NAME["svd-xt"].shapes
        if "diffusion_model." in key
    }
    assert set(SVD.parts["diffusion_model"].shapes(config)) == unet


def test_lists_know_lora_files(tmp_path):
    """The list of ExVideo Patch leaves out what is surely for another family, the other lists all LoRA files."""
    shelf = Catalogue(FAMILIES)
    paths = {}
    for name, shapes in (("exvideo", exvideo()), ("svd", svd())):
        paths[name] = age(write_sparse(tmp_path / f"{name}.safetensors", shapes))
        assert not shelf.is_others(paths[name], "cogvideox", LORA)
    shelf.wait(30)
    assert not shelf.is_others(paths["exvideo"], "cogvideox", LORA)
    assert shelf.is_others(paths["svd"], "cogvideox", LORA)
    assert shelf.is_others(paths["exvideo"], "cogvideox", "diffusion_model")
    assert doctor.LORA_NODE.id == "KinetographLoRAStack"
