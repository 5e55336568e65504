"""The files of PixArt and EasyAnimate v1: published lists strictly, every layout the same weights, both in one file."""

import random

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.doctor import examine
from kinetograph.modules.families import EASYANIMATE, FAMILIES, PIXART
from kinetograph.modules.families.easyanimate import MOTION_MODULE
from kinetograph.modules.families.pixart import TRANSFORMER
from kinetograph.modules.families.pixart.config import PixArtConfig
from kinetograph.modules.weights.detect import choose, detect, detect_all, sure_parts
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.load import load_into, read_part
from kinetograph.tests import tiny_pixart
from kinetograph.tests.checkpoints import BY_NAME, header, remember_shapes, write_sparse

SILENCE = "caption_projection.y_embedding"
PLAIN = {key: shape for key, shape in BY_NAME["pixart-512"].shapes.items() if key != SILENCE}
SIZED = {key: shape for key, shape in BY_NAME["pixart-1024"].shapes.items() if key != SILENCE}
ORIGINAL = BY_NAME["pixart-512-original"].shapes
ORIGINAL_SIZED = BY_NAME["pixart-1024-original"].shapes
MOTION = BY_NAME["easyanimate-v1-mm"].shapes
PORTRAIT = BY_NAME["easyanimate-portrait"].shapes
VAE = BY_NAME["sd-vae-diffusers"].shapes
VAE_ORIGINAL = BY_NAME["sd-vae-original"].shapes
QKV, KV = "blocks.3.attn.qkv.weight", "blocks.3.cross_attn.kv_linear.bias"


def find(shapes, kind=None, **options):
    return detect(header(shapes, **options), FAMILIES, kind)


def without(shapes, *keys):
    return {key: shape for key, shape in shapes.items() if key not in keys}


def in_our_names(finding, shapes):
    """{our key: shape as loaded}; a third of a fused tensor's rows for each of its layers."""
    split = {"attn.qkv[": 3, "cross_attn.kv_linear[": 2}
    found = {}
    for key, ours in finding.renames.items():
        if ours is not None:
            parts = next((count for name, count in split.items() if name in key), 1)
            whole = key if parts == 1 else key[: key.index("[")] + key[key.index("]") + 1 :]
            found[ours] = (shapes[whole][0] // parts, *shapes[whole][1:]) if parts > 1 else shapes[whole]
    return found | finding.reshaped


def numbers(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


LISTS = {  # shapes: keys, used, known and dropped, dialect, variant
    "512": (PLAIN, 603, 603, 0, "diffusers", "512"),
    "512 with its silence": ({**PLAIN, SILENCE: (120, 4096)}, 604, 603, 1, "diffusers", "512"),
    "1024": (SIZED, 611, 611, 0, "diffusers", "1024-MS"),
    "512 original": (without(ORIGINAL, "pos_embed"), 436, 435, 1, "original", "512"),
    "512 original with positions": (ORIGINAL, 437, 435, 2, "original", "512"),
    "1024 original": (without(ORIGINAL_SIZED, "pos_embed"), 444, 443, 1, "original", "1024-MS"),
    "portrait": (PORTRAIT, 603, 603, 0, "diffusers", "512"),
    "motion": (MOTION, 784, 728, 56, "original", "v1 motion module"),
    "motion without its tables": (
        {key: shape for key, shape in MOTION.items() if not key.endswith(".pe")},
        *(728, 728, 0, "original", "v1 motion module"),
    ),
    "vae": (VAE, 248, 248, 0, "diffusers", "VAE"),
    "vae original": (VAE_ORIGINAL, 248, 248, 0, "original", "VAE"),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("prefix", ["", "module.model.diffusion_model."])
def test_every_key_is_used_or_dropped_knowingly(name, prefix):
    shapes, keys, used, dropped, dialect, variant = LISTS[name]
    assert len(shapes) == keys
    finding = find({prefix + key: shape for key, shape in shapes.items()}).check()
    assert (finding.matched, finding.num_dropped) == (used, dropped)
    assert (finding.dialect, finding.variant, finding.prefix) == (dialect, variant, prefix)
    assert not (finding.missing or finding.unexpected or finding.misshapen)


def test_the_motion_module_has_as_many_numbers_as_the_published_file():
    assert numbers(MOTION) == 1_082_414_592
    tables = {key: shape for key, shape in MOTION.items() if key.endswith(".pe")}
    assert set(tables.values()) == {(1, 4096, 1152)} and len(tables) == 56


@pytest.mark.parametrize("name", ["512", "1024", "portrait", "512 original", "1024 original", "motion"])
def test_our_models_hold_exactly_what_the_files_hold(name):
    shapes = LISTS[name][0]
    finding = find(shapes).check()
    module = finding.part.empty(finding.config)
    held = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert in_our_names(finding, shapes) == held
    assert {key for key, _ in (*module.named_parameters(), *module.named_buffers())} == set(held)


@pytest.mark.parametrize(
    ("theirs", "diffusers"), [(ORIGINAL, PLAIN), (ORIGINAL_SIZED, SIZED), (VAE_ORIGINAL, VAE)]
)
def test_every_layout_holds_the_same_weights(theirs, diffusers):
    one, other = in_our_names(find(theirs), theirs), in_our_names(find(diffusers), diffusers)
    assert one == other


def old_names(shapes):
    """diffusers' before 0.17; its matrices may be convolutions of one pixel, as the original's are."""
    for half in ("encoder", "decoder"):
        place = f"{half}.mid_block.attentions.0."
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            for kind in ("weight", "bias"):
                shapes[f"{place}{old}.{kind}"] = shapes.pop(f"{place}{new}.{kind}")
    return shapes


def test_a_vae_with_the_old_names_of_its_attention():
    old = old_names(dict(VAE))
    finding = find(old).check()
    assert (finding.kind, finding.matched) == ("vae", 248)
    assert in_our_names(finding, old) == in_our_names(find(VAE), VAE)


def test_settings_decide_what_no_shape_tells():
    small = {"num_attention_heads": 18, "sample_size": 32}
    config = find(PLAIN, settings=small).check().config
    assert (config.num_heads, config.head_dim, config.sample_size) == (18, 64, 32)
    assert find(PLAIN).config == PixArtConfig()
    assert find(SIZED).config.native_size == (1024, 1024, 1)
    assert find(MOTION, settings={"block_size": 1}).config.cell == 1
    for wrong in ({"num_attention_heads": 7}, {"sample_size": 1}, {"num_attention_heads": "16"}):
        with pytest.raises(CheckpointError, match="looks like PixArt diffusion_model, but: "):
            find(PLAIN, settings=wrong).check()


CASES = {
    "512": (PLAIN, "diffusion_model"),
    "1024": (SIZED, "diffusion_model"),
    "512 original": (without(ORIGINAL, "pos_embed", "y_embedder.y_embedding"), "diffusion_model"),
    "motion": (LISTS["motion without its tables"][0], "motion_module"),
    "vae": (VAE, "vae"),
    "vae original": (VAE_ORIGINAL, "vae"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_key_that_is_lacking_or_has_another_name_is_an_error(name, monkeypatch):
    remember_shapes(monkeypatch)
    shapes, kind = CASES[name]
    part = find(shapes).part
    renames = find(shapes).renames
    telling = [key.split("[")[0] for key, ours in renames.items() if ours in part.signature]
    some = [key for key in shapes if any(key.startswith(one) for one in telling)]
    for key in [*some, *random.Random(0).sample(sorted(shapes), 4)]:
        for change in ({}, {f"{key}x": shapes[key]}, {f"strange.{key}": shapes[key]}):
            finding = find({**without(shapes, key), **change}, kind)
            assert not finding.complete, (key, change)
            with pytest.raises(CheckpointError, match="model.safetensors"):
                finding.check()


@pytest.mark.parametrize("name", CASES)
def test_one_shape_that_is_another_is_an_error(name, monkeypatch):
    remember_shapes(monkeypatch)
    shapes, kind = CASES[name]
    config = find(shapes, kind).config
    for key in random.Random(1).sample(sorted(shapes), 4):
        shape = shapes[key]
        for wrong in [(*shape[:-1], shape[-1] + 1), (*shape, 2), shape[:-1]]:
            finding = find({**shapes, key: wrong}, kind)
            assert not finding.complete or finding.config != config, (key, wrong)


@pytest.mark.parametrize(
    ("key", "shape"), [(QKV, (3457, 1152)), (QKV, ()), (KV, (2303,)), (QKV, (3456,)), (QKV, (2304, 1152))]
)
def test_a_fused_tensor_that_does_not_divide_into_its_layers_is_named(key, shape):
    finding = find({**ORIGINAL, key: shape})
    assert not finding.complete and finding.kind == "diffusion_model"
    assert "blocks.3." in finding.complaint()


def test_pixart_and_its_motion_modules_in_one_file_are_both_complete():
    """As EasyAnimate's own training saves them."""
    both = header({**PLAIN, **MOTION})
    assert sure_parts(both.shapes, FAMILIES) == {
        ("pixart", "diffusion_model"),
        ("easyanimate", "motion_module"),
    }
    network = choose(both, FAMILIES, PIXART, "diffusion_model")
    motion = choose(both, FAMILIES, EASYANIMATE, "motion_module")
    assert (network.matched, network.num_dropped) == (603, 784)
    assert (motion.matched, motion.num_dropped) == (728, 56 + 603)
    alone = detect_all(header(PLAIN), (PIXART,))[0], detect_all(header(MOTION), (EASYANIMATE,))[0]
    assert (network.config, motion.config) == (alone[0].config, alone[1].config)
    for family, kind, lacking in (
        (PIXART, "diffusion_model", "transformer_blocks.9.attn2.to_q.weight"),
        (EASYANIMATE, "motion_module", next(key for key in MOTION if "blocks.9" in key and "ff_norm" in key)),
    ):
        with pytest.raises(CheckpointError, match=lacking.replace(".", r"\.")):
            choose(header(without(both.shapes, lacking)), FAMILIES, family, kind)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (PLAIN, "PixArt"),
        (PORTRAIT, "PixArt"),
        (ORIGINAL_SIZED, "1024-MS"),
        (MOTION, "EasyAnimate"),
        (VAE, "VAE"),
        ({**PLAIN, **MOTION}, "PixArt"),
    ],
)
def test_the_doctor_knows_them_whole(tmp_path, shapes, words):
    report = examine(write_sparse(tmp_path / "any.safetensors", shapes, "F16"))
    assert report.complete and words in report.to_text()


@pytest.mark.parametrize("half", [PLAIN, MOTION])
def test_the_doctor_names_what_is_lacking(tmp_path, half):
    key = next(key for key in half if key.startswith("transformer_blocks.5.") and key.endswith("net.2.bias"))
    report = examine(write_sparse(tmp_path / "any.safetensors", without(half, key)))
    assert not report.complete and f"1 missing ({key})" in report.to_text()


# the tiny original file

THEIRS = (  # PixArt-alpha's tools/convert_pixart_alpha_to_diffusers.py, the other way round
    ("pos_embed.proj", "x_embedder.proj"),
    ("adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("adaln_single.emb.resolution_embedder.linear_1", "csize_embedder.mlp.0"),
    ("adaln_single.emb.resolution_embedder.linear_2", "csize_embedder.mlp.2"),
    ("adaln_single.emb.aspect_ratio_embedder.linear_1", "ar_embedder.mlp.0"),
    ("adaln_single.emb.aspect_ratio_embedder.linear_2", "ar_embedder.mlp.2"),
    ("adaln_single.linear", "t_block.1"),
    ("caption_projection.linear_1", "y_embedder.y_proj.fc1"),
    ("caption_projection.linear_2", "y_embedder.y_proj.fc2"),
    ("proj_out", "final_layer.linear"),
)
THEIRS_IN_A_BLOCK = (
    ("attn1.to_out.0", "attn.proj"),
    ("attn2.to_q", "cross_attn.q_linear"),
    ("attn2.to_out.0", "cross_attn.proj"),
    ("ff.net.0.proj", "mlp.fc1"),
    ("ff.net.2", "mlp.fc2"),
)


def as_original(weights):
    """A PixArt of diffusers in the layout of PixArt-alpha's own files."""
    theirs = {"final_layer.scale_shift_table": weights["scale_shift_table"]}
    for kind in ("weight", "bias"):
        theirs |= {
            f"{new}.{kind}": weights[f"{old}.{kind}"] for old, new in THEIRS if f"{old}.{kind}" in weights
        }
        for i in range(tiny_pixart.LAYERS):
            old, new = f"transformer_blocks.{i}.", f"blocks.{i}."
            theirs |= {f"{new}{b}.{kind}": weights[f"{old}{a}.{kind}"] for a, b in THEIRS_IN_A_BLOCK}
            for fused, attention, names in (("attn.qkv", 1, "qkv"), ("cross_attn.kv_linear", 2, "kv")):
                parts = [weights[f"{old}attn{attention}.to_{name}.{kind}"] for name in names]
                theirs[f"{new}{fused}.{kind}"] = torch.cat(parts)
            theirs[f"{new}scale_shift_table"] = weights[f"{old}scale_shift_table"]
    return theirs


@pytest.mark.parametrize("sample_size", [64, 128])
@pytest.mark.parametrize("wrapper", ["state_dict", None])
def test_an_original_pth_is_the_same_network(tmp_path, sample_size, wrapper):
    reference = tiny_pixart.transformer(sample_size)
    weights = reference.state_dict()
    theirs = as_original(weights)
    beside = {
        "y_embedder.y_embedding": torch.zeros(120, 16),
        "pos_embed": torch.zeros(1, 16, tiny_pixart.WIDTH),
    }
    assert sum(value.numel() for value in theirs.values()) == sum(value.numel() for value in weights.values())
    content = {**theirs, **beside}
    path = tmp_path / "PixArt-XL-2.pth"
    torch.save({wrapper: content, "epoch": 3, "step": 7} if wrapper else content, path)
    finding, tensors = read_part(path, (PIXART,), "diffusion_model")
    assert (finding.dialect, finding.num_dropped, finding.config.sized) == (
        "original",
        2,
        sample_size == 128,
    )
    reference.save_pretrained(tmp_path / "folder")
    named = read_part(tmp_path / "folder", (PIXART,), "diffusion_model")[1]
    assert tensors.keys() == named.keys()
    assert all(torch.equal(tensors[key], named[key]) for key in named)
    loaded = load_into(TRANSFORMER.empty(finding.config), tensors).state_dict()
    assert all(torch.equal(loaded[key], named[key]) for key in named)


def test_one_file_of_both_loads_into_both(tmp_path):
    network, motion = tiny_pixart.transformer().state_dict(), dict(tiny_pixart.modules().state_dict())
    path = tmp_path / "checkpoint.safetensors"
    save_file({**network, **motion}, path)
    for family, kind, part, expected in (
        (PIXART, "diffusion_model", TRANSFORMER, network),
        (EASYANIMATE, "motion_module", MOTION_MODULE, motion),
    ):
        finding, tensors = read_part(path, (family,), kind)
        loaded = load_into(part.empty(finding.config), tensors).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
