"""Every layout a checkpoint is published in makes the same frames; every damaged one is refused in words."""

import io
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kinetograph.modules.families import FAMILIES
from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import loader, node, text_to_video, with_frames

pytestmark = pytest.mark.newest

NATIVE = FAMILIES[0].parts["diffusion_model"].dialects["comfy"].reverse()
DTYPE = {"weight_dtype": "fp32"}


def component(base, part):
    """(tensors, metadata that carries the component's settings) of the tiny 5B pipeline."""
    folder = base / "models" / "CogVideo" / "tiny-5B" / part
    return load_file(tiny.weights_of(folder)), {"config": (folder / "config.json").read_text()}


def under(prefix, tensors):
    return {prefix + key: tensor for key, tensor in tensors.items()}


def native(tensors):
    return {NATIVE.find(key)[1]: tensor for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def layouts(base):
    """Loader inputs by layout, all of the same weights."""
    models = base / "models"
    for folder in ("diffusion_models", "checkpoints", "vae", "text_encoders"):
        (models / folder).mkdir(exist_ok=True)
    transformer, settings = component(base, "transformer")
    vae, vae_settings = component(base, "vae")
    text, _ = component(base, "text_encoder")
    save_file(text, models / "text_encoders" / "tiny-t5.safetensors")
    save_file(vae, models / "vae" / "tiny-vae.safetensors", vae_settings)
    files = {
        "diffusion_models/tiny-diffusers": transformer,
        "diffusion_models/tiny-native": native(transformer),
        "checkpoints/tiny-native-prefixed": under("model.diffusion_model.", native(transformer)),
        "CogVideo/tiny-single": transformer,
        "checkpoints/tiny-with-vae": under("model.diffusion_model.", transformer) | under("vae.", vae),
        "diffusion_models/tiny-wrapped": under("module._orig_mod.", native(transformer)),
        "diffusion_models/tiny-piped": under("pipe.transformer.", transformer) | under("pipe.vae.", vae),
    }
    for name, tensors in files.items():
        save_file(tensors, models / f"{name}.safetensors", settings)
    (models / "diffusion_models" / "LOUD.SAFETENSORS").hardlink_to(
        models / "diffusion_models" / "tiny-native.safetensors"
    )
    parts = {"text_encoder": "tiny-t5.safetensors", "vae": "tiny-vae.safetensors"}
    chosen = {
        name.split("/")[1]: name.removeprefix("diffusion_models/").removeprefix("checkpoints/")
        for name in files
    }
    singles = {name: {"model": f"{path}.safetensors", **parts} for name, path in chosen.items()}
    folders = {name: {"model": f"CogVideo/{name}"} for name in write_folders(models / "CogVideo")}
    return {**singles, **folders, "LOUD": {"model": "LOUD.SAFETENSORS", **parts}}


def write_folders(cogvideo):
    """Names of diffusers folders as they lie on disks: in shards, fp16 by name, with what macOS leaves on a drive."""
    for name, variant in (("tiny-sharded", None), ("tiny-fp16-named", "fp16")):
        shutil.copytree(cogvideo / "tiny-5B", cogvideo / name)
        shutil.rmtree(cogvideo / name / "transformer")
        options = {"max_shard_size": "20KB", "variant": variant}
        tiny.transformer("5B").save_pretrained(cogvideo / name / "transformer", **options)
        pattern = f"*{'.fp16' if variant else ''}-*-of-*.safetensors"
        assert len(list((cogvideo / name / "transformer").glob(pattern))) > 2
    foreign = cogvideo / "tiny-on-exfat"
    shutil.copytree(cogvideo / "tiny-sharded", foreign)
    for file in [file for file in foreign.rglob("*") if file.is_file()]:
        file.with_name("._" + file.name).write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
    return ["tiny-sharded", "tiny-fp16-named", foreign.name]


def pixels(client, changes):
    graph = with_frames(text_to_video(frames=5, steps=1))
    graph["loader"] = loader(**DTYPE | changes)
    result = client.run(graph)
    assert result.status == "success", result.message
    return np.stack([np.asarray(Image.open(io.BytesIO(client.view(file)))) for file in result.files()])


LAYOUTS = [
    "tiny-diffusers",
    "tiny-native",
    "tiny-native-prefixed",
    "tiny-single",
    "tiny-with-vae",
    "tiny-wrapped",
    "tiny-piped",
    "LOUD",
    "tiny-sharded",
    "tiny-fp16-named",
    "tiny-on-exfat",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_makes_the_same_frames(client, layouts, layout):
    expected = pixels(client, {"model": "CogVideo/tiny-5B"})
    assert expected.std() > 0
    assert np.array_equal(pixels(client, layouts[layout]), expected)


def test_raw_fp8_file(client, base, layouts):
    transformer, settings = component(base, "transformer")
    fp8 = {
        key: tensor.to(torch.float8_e4m3fn) if tensor.ndim == 2 and "transformer_blocks" in key else tensor
        for key, tensor in transformer.items()
    }
    save_file(fp8, base / "models" / "diffusion_models" / "tiny-fp8.safetensors", settings)
    changes = {**layouts["tiny-diffusers"], "model": "tiny-fp8.safetensors", "weight_dtype": "auto"}
    assert pixels(client, changes).std() > 0


def corrupt(base):
    """Damaged files by what the message must say."""
    transformer, settings = component(base, "transformer")
    folder = base / "models" / "diffusion_models"
    whole = folder / "whole.safetensors"
    save_file(transformer, whole, settings)
    content = whole.read_bytes()
    lacking = {key: tensor for key, tensor in transformer.items() if "blocks.1.ff" not in key}
    misshapen = {**transformer, "norm_final.weight": torch.ones(7)}
    for name, tensors in {"lacking": lacking, "misshapen": misshapen}.items():
        save_file(tensors, folder / f"{name}.safetensors", settings)
    save_file({"layer.weight": torch.ones(2)}, folder / "strange.safetensors")
    plain = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "page": b"<!DOCTYPE html><html></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "pickled": pickle.dumps({"state_dict": 1}),
    }
    for name, damaged in plain.items():
        (folder / f"{name}.safetensors").write_bytes(damaged)
    return {
        "cut": rf"cut off: {len(content)} bytes are expected, {len(content) // 2} bytes",
        "empty": "an empty file",
        "page": "an HTML page",
        "pointer": "a git-LFS pointer",
        "pickled": "a pickle file",
        "lacking": r"CogVideoX 5B .*4 missing \(transformer_blocks\.1\.ff",
        "misshapen": r"1 misshapen \(norm_final\.weight: \(7,\) for \(32,\)\)",
        "strange": "is of no kind known here",
    }


@pytest.fixture(scope="module")
def damage(base, layouts):
    return corrupt(base)


BAD = ["cut", "empty", "page", "pointer", "pickled", "lacking", "misshapen", "strange"]


@pytest.mark.parametrize("name", BAD)
def test_damaged_checkpoints_are_refused_before_anything_runs(client, base, layouts, damage, name):
    graph = with_frames(text_to_video(frames=5, steps=1))
    graph["loader"] = loader(**{**layouts["tiny-diffusers"], "model": f"{name}.safetensors"})
    result = client.run(graph)
    assert result.status == "refused"
    assert re.search(damage[name], result.message), result.message
    assert f"{name}.safetensors" in result.message
    assert str(base) not in result.message, "no absolute path"
    assert "weights_only" not in result.message
    assert list(result.node_errors) == ["loader"]


def odd_parts(base):
    """(the loader's input, the file, what is said of it): settings and shapes that nothing can be built with."""
    transformer, settings = component(base, "transformer")
    text, _ = component(base, "text_encoder")
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    tokens = {**json.loads(settings["config"]), "max_text_seq_length": 10**9}
    size = {**json.loads(settings["config"]), "sample_width": "90"}
    config = {"config": json.dumps(tokens)}, {"config": json.dumps(size)}
    turned, empty = {**text, table: text[table].T.contiguous()}, {**text, table: text[table][:, :0]}
    return [
        (
            "model",
            "tokens",
            transformer,
            config[0],
            "max_text_seq_length in its config must be a whole number",
        ),
        ("model", "width", transformer, config[1], "sample_width in its config must be a whole number"),
        ("text_encoder", "turned-t5", turned, None, "32 rows fit"),
        ("text_encoder", "empty-t5", empty, None, "at least one number each"),
    ]


def test_doctor_and_loader_refuse_alike_what_nothing_can_be_built_with(client, base, layouts):
    for place, name, tensors, metadata, said in odd_parts(base):
        folder = "diffusion_models" if place == "model" else "text_encoders"
        save_file(tensors, base / "models" / folder / f"{name}.safetensors", metadata)
        graph = with_frames(text_to_video(frames=5, steps=1))
        graph["loader"] = loader(**{**layouts["tiny-diffusers"], place: f"{name}.safetensors"})
        result = client.run(graph)
        assert result.status == "refused" and said in result.message, result.message
        (text,) = doctor(client, f"{name}.safetensors").outputs["doctor"]["text"]
        assert said in text and "Complete" not in text


def doctor(client, model):
    return client.run({"doctor": node("KinetographModelDoctor", model=model)})


def test_doctor_reports_in_the_browser(client, base, layouts, damage):
    result = doctor(client, "tiny-native.safetensors")
    (text,) = result.outputs["doctor"]["text"]
    assert "5B" in text and "comfy" in text and "Complete" in text
    (text,) = doctor(client, "lacking.safetensors").outputs["doctor"]["text"]
    assert "missing: transformer_blocks.1.ff" in text
    assert str(base) not in text
    failed = doctor(client, "page.safetensors")
    assert failed.status == "error" and "HTML page" in failed.message


def test_doctor_looks_again_at_a_replaced_file(client, base, layouts):
    path = base / "models" / "diffusion_models" / "changing.safetensors"
    for variant in ("5B", "1.5-5B"):
        tensors = tiny.transformer(variant).state_dict()
        config = json.dumps({**tiny.TRANSFORMER, **tiny.VARIANTS[variant]})
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, {"config": config})
        (text,) = doctor(client, "changing.safetensors").outputs["doctor"]["text"]
        assert f"variant     {variant}" in text
