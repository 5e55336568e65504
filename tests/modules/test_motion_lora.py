"""MotionLoRAs, the domain adapter and other projects' files by their headers; MotionLoRAs against diffusers' own loader."""

import json

import pytest
import torch

from kinetograph.modules.doctor import examine, main
from kinetograph.modules.families.animatediff import MOTION_MODULE
from kinetograph.modules.weights.lora import match_lora
from kinetograph.modules.weights.lora_names import names_of
from kinetograph.tests import motion_files
from kinetograph.tests import motion_loras as loras
from kinetograph.tests.checkpoints import write_sparse, write_sparse_ckpt
from kinetograph.tests.motion_strangers import STRANGERS

V2 = loras.of_motion(motion_files.PUBLISHED["v2"])
UNET = loras.of_unet()
# shapes of the published files: keys, modules, rank, bytes of the .ckpt, and what the doctor says
PUBLISHED = {
    "MotionLoRA": (
        lambda: loras.shapes_of(V2, 64),
        *(336, 168, 64, 77_474_499),
        {"folder": "animatediff_motion_lora", "variant": "LoRA for AnimateDiff v2"},
    ),
    "domain adapter": (
        lambda: loras.shapes_of(UNET, 128),
        *(256, 128, 128, 102_134_097),
        {"folder": "loras", "variant": "LoRA for SD1.5 (AnimateDiff's v3 domain adapter)"},
    ),
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files(name, suffix, tmp_path, capsys):
    shapes, keys, modules, rank, size, wanted = PUBLISHED[name]
    write = write_sparse_ckpt if suffix == "ckpt" else write_sparse
    path = write(tmp_path / f"any.{suffix}", shapes(), "F32")
    assert abs(path.stat().st_size / size - 1) < 0.01
    assert main([str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["keys"], told["matched"], told["unexpected"]) == (keys, keys, 0)
    assert (told["family"], told["node"], told["dtype"]) == ("animatediff", "KinetographLoRAStack", "float32")
    assert (told["lora"]["ranks"], told["lora"]["modules"]) == ([rank], modules)
    assert {word: told[word] for word in wanted} == wanted
    text = examine(path).to_text()
    assert f"folder      {wanted['folder']}\n" in text and "node        LoRA Stack\n" in text
    assert "Complete: a " + wanted["variant"] in text
    assert ("hint        adapter_alpha of LoRA Stack" in text) == (name == "domain adapter")
    assert told["lora"]["hint"].startswith("adapter_alpha") == (name == "domain adapter")


def test_the_doctor_names_modules_shortly(tmp_path):
    shapes = loras.shapes_of(loras.of_motion(motion_files.PUBLISHED["v2"], True), 8, "MotionDirector")
    text = examine(write_sparse(tmp_path / "a.safetensors", shapes)).to_text()
    (line,) = [line for line in text.splitlines() if line.startswith("  modules")]
    attention = [f"attention_blocks.0-1.to_{name}" for name in ("k", "out.0", "q", "v")]
    assert line.startswith("  modules     210: ")
    assert sorted(line.split(": ")[1].split(", ")) == [*attention, "ff.net.0.proj", "ff.net.2"]
    assert "Complete: a LoRA for AnimateDiff v2." in text


@pytest.mark.parametrize("version", ["v3", "SDXL beta"])
def test_the_doctor_knows_the_unet(version, tmp_path):
    modules = loras.of_motion(motion_files.PUBLISHED[version])
    report = examine(write_sparse(tmp_path / "a.safetensors", loras.shapes_of(modules, 4))).to_json()
    wanted = {"v3": "AnimateDiff v2, v3 or v1", "SDXL beta": "AnimateDiff SDXL beta"}[version]
    assert (report["variant"], report["unexpected"]) == (f"LoRA for {wanted}", 0)


LOOK_ALIKE = {
    "rank of diffusers' own": loras.shapes_of(UNET, 4),
    "without the middle": loras.shapes_of({key: UNET[key] for key in UNET if "mid_block" not in key}, 128),
    "one pair more": {
        **loras.shapes_of(UNET, 128),
        **loras.shapes_of({"down_blocks.0.attentions.0.proj_in": (320, 320)}, 128),
    },
    "with alphas": {
        **loras.shapes_of(UNET, 128, "kohya"),
        **{f"{loras.flat(module)}.alpha": () for module in UNET},
    },
    "of PEFT": loras.shapes_of(UNET, 128, "PEFT"),
}


@pytest.mark.parametrize("name", LOOK_ALIKE)
def test_what_is_no_domain_adapter(name, tmp_path):
    report = examine(write_sparse(tmp_path / "a.safetensors", LOOK_ALIKE[name])).to_json()
    assert "adapter" not in report["variant"] and not report["lora"]["hint"]


def test_motion_directors_file_for_the_unet(tmp_path):
    made = loras.of_unet(more=loras.FORWARD)
    tensors = loras.spatial(
        {key: (torch.zeros(8, size[1]), torch.zeros(size[0], 8)) for key, size in made.items()}
    )
    path = write_sparse(
        tmp_path / "a.safetensors", {key: tuple(value.shape) for key, value in tensors.items()}
    )
    assert examine(path).to_json()["variant"] == "LoRA for SD1.5"


@pytest.mark.parametrize("rank", [16, 128])
@pytest.mark.parametrize("spelling", ["kohya", "PEFT"])
def test_a_picture_models_lora_is_not_svds(spelling, rank, tmp_path):
    """SVD's UNet has most of SD1.5's layers by the same names and sizes; those that read the text are narrower."""
    modules = loras.of_unet(more=loras.FORWARD)
    path = write_sparse(tmp_path / "a.safetensors", loras.shapes_of(modules, rank, spelling))
    assert examine(path).to_json()["variant"] == "LoRA for SD1.5"


@pytest.mark.parametrize("label", STRANGERS)
def test_strangers_are_called_by_their_names(label, tmp_path, capsys):
    shapes, words = STRANGERS[label]
    path = write_sparse(tmp_path / "any.safetensors", shapes())
    assert main([str(path)]) == 1
    text = capsys.readouterr().out
    assert f"family      {label.split(' for ')[0].split(',')[0]}\n" in text
    assert f"any.safetensors {words}" in text


@pytest.mark.parametrize("version", motion_files.CONFIGS)
def test_no_motion_module_is_a_stranger(version, tmp_path):
    """Nor is one that lacks a layer, or holds one too many: it says so."""
    shapes = dict(MOTION_MODULE.shapes(motion_files.CONFIGS[version]))
    path = write_sparse(tmp_path / "a.safetensors", shapes)
    assert examine(path).complete
    del shapes["down_blocks.0.motion_modules.1.temporal_transformer.proj_out.weight"]
    report = examine(write_sparse(path, {**shapes, "of.nobody": (2,)}))
    assert not report.complete and "looks like AnimateDiff" in report.to_text()


def test_the_names_are_those_of_diffusers():
    """Every attention of a MotionAdapter, and all that is linear in its blocks."""
    from diffusers import MotionAdapter

    adapter = MotionAdapter(
        (32, 64), motion_layers_per_block=2, motion_num_attention_heads=4, use_motion_mid_block=True
    )
    config = motion_files.MotionConfig((32, 64), mid=True, version="v2")
    linear = {
        name: tuple(layer.weight.shape)
        for name, layer in adapter.named_modules()
        if isinstance(layer, torch.nn.Linear) and ".transformer_blocks." in name
    }
    made = loras.of_motion(config, everything=True)
    assert {loras.to_diffusers(module): shape for module, shape in made.items()} == linear
    shapes = loras.shapes_of(made, 4, "PEFT")
    lora = match_lora(shapes, names_of(MOTION_MODULE, MOTION_MODULE.shapes(config)), "")
    assert lora.matched == len(linear) == 11 * 10 and not lora.unmatched
    for module in made:
        key = f"unet.{loras.to_diffusers(module)}.lora_B.weight"
        assert lora.renames[key] == f"{module}.lora_B.weight"
