"""LoRA Stack on the real host, through its queue: in turn with nothing, replaced files, bad files, three parts apart."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tests.host import lora_files
from kinetograph.tests.host.graphs import loader, node, text_to_video
from kinetograph.tests.host.lora_files import DIALECTS, TEXT_DIALECTS
from kinetograph.tests.host.state import NONCES, latents, same

FRAMES = 9


@pytest.fixture(scope="module")
def folder(base):
    return base / "models" / "loras"


@pytest.fixture(scope="module")
def files(folder):
    """Names of files: for the model alone, and with T5 parts."""
    net = lora_files.changes(lora_files.reference("5B"), alphas=True)
    tensors = lora_files.tensors_of(net, DIALECTS["Fun"])
    text = lora_files.tensors_of(lora_files.changes(lora_files.text_reference()), TEXT_DIALECTS["kohya"])
    return {
        "model": lora_files.write(folder, "stack.safetensors", tensors),
        "text": lora_files.write(folder, "stack-text.safetensors", {**tensors, **text}),
        "exvideo": lora_files.write_exvideo(folder),
        "2B": lora_files.write(folder, "stack-2b.safetensors", wide(tensors)),
    }


def wide(tensors):
    """The same LoRA as for a model of twice the width."""
    return {
        key: torch.cat([value, value], 1 if "down" in key else 0) if value.ndim else value
        for key, value in tensors.items()
    }


def rows(*named, **more):
    """Inputs of a stack; a row is (file, strength)."""
    inputs = {"loras": str(len(named)), "allow_partial": False, **more}
    for i, (name, strength) in enumerate(named, 1):
        parts = {f"lora_{i}": name, f"strength_{i}": strength, f"text_strength_{i}": strength}
        inputs |= {f"loras.{key}": value for key, value in parts.items()}
    return inputs


def sampling(*named, patch=None, clip=False, frames=FRAMES, **changes):
    """Loader to latent file, with a stack of these rows or with ExVideo Patch between MODEL and sampler."""
    graph = text_to_video(frames=frames, steps=1, nonce=next(NONCES))
    if named:
        more = {"clip": ["loader", 1]} if clip else {}
        graph["stack"] = node("KinetographLoRAStack", model=["loader", 0], **rows(*named, **more, **changes))
    if patch:
        graph["stack"] = node("KinetographExVideoPatch", model=["loader", 0], exvideo=patch)
    if "stack" in graph:
        graph["sampler"]["inputs"]["model"] = ["stack", 0]
    if clip:
        graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = ["stack", 1]
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="stack")
    return graph


def failure(client, graph):
    """What a prompt that must fail is told, at its post or while it runs."""
    result = client.run(graph)
    assert result.status != "success"
    return f"{result.message} {result.node_errors}"


def test_in_turn_with_nothing(client, files):
    plain = latents(client, sampling())
    changed = latents(client, sampling((files["model"], 0.7)))
    assert not same(changed, plain)
    assert same(latents(client, sampling()), plain)
    assert same(latents(client, sampling((files["model"], 0.0), (files["exvideo"], 0.0))), plain)
    assert same(latents(client, sampling((files["model"], 0.7))), changed)
    with_text = latents(client, sampling((files["text"], 0.7), clip=True))
    assert not same(with_text, changed)
    # T5 parts at strength 0 for the text: that of the model alone is left
    graph = sampling((files["text"], 0.7), clip=True)
    graph["stack"]["inputs"]["loras.text_strength_1"] = 0.0
    assert same(latents(client, graph), changed)
    assert same(latents(client, sampling()), plain)


def test_both_nodes_put_on_exvideo_alike(client, files):
    stack = latents(client, sampling((files["exvideo"], 1.0)))
    assert same(latents(client, sampling(patch=files["exvideo"])), stack)
    assert not same(latents(client, sampling()), stack)
    told = failure(client, sampling(patch=files["exvideo"], frames=133))
    assert "CogVideoX 5B with ExVideo makes clips of at most 129 frames: got 133" in told


def test_exvideo_patch_tells_the_size_to_video_latent(client, files, folder):
    """33 latents of 60x90 cells as published; a file may tell another size in its metadata."""
    small = lora_files.write_exvideo(folder, "exvideo-small.safetensors", (64, 32, 33))
    for name, shape in ((files["exvideo"], [1, 16, 33, 60, 90]), (small, [1, 16, 9, 4, 8])):
        graph = sampling(patch=name)
        graph["latent"]["inputs"] |= {"width": 0, "height": 0, "num_frames": 0, "model": ["stack", 0]}
        graph["save"]["inputs"]["samples"] = ["latent", 0]
        (file,) = client.run(graph).files()
        assert list(load(client.view(file))["latent_tensor"].shape) == shape


def test_a_file_replaced_under_its_name_is_loaded_again(client, files, folder):
    name = lora_files.write(folder, "replaced.safetensors", load_file(folder / files["model"]))
    graph = sampling((name, 0.7))
    first = latents(client, graph)
    other = {key: value.flip(0) for key, value in load_file(folder / name).items()}
    save_file({key: value.contiguous() for key, value in other.items()}, folder / "coming.tmp")
    os.replace(folder / "coming.tmp", folder / name)
    result = client.run(graph)
    assert result.status == "success", result.message
    assert "stack" not in result.cached and "loader" in result.cached
    (file,) = result.files()
    assert not same(client.view(file), first)


def test_a_bad_row_leaves_nothing_behind(client, files, folder):
    plain = latents(client, sampling())
    told = failure(client, sampling((files["model"], 0.7), (files["2B"], 1.0)))
    assert "stack-2b.safetensors changes nothing in this model" in told
    cut = (folder / files["model"]).read_bytes()[:-100]
    (folder / "cut.safetensors").write_bytes(cut)
    assert "cut.safetensors" in failure(client, sampling((files["model"], 0.7), ("cut.safetensors", 1.0)))
    assert "also changes 14 modules of the T5" in failure(client, sampling((files["text"], 0.7)))
    assert same(latents(client, sampling()), plain)


@pytest.fixture
def apart(base):
    """Names of three parts of a pipeline, each in the folder of its kind; the VAE is a file that tells its sizes."""
    pipeline, models = base / "models" / "CogVideo" / "tiny-5B", base / "models"
    places = [models / "diffusion_models" / "apart", models / "text_encoders" / "apart"]
    for part, place in zip(("transformer", "text_encoder"), places, strict=True):
        shutil.copytree(pipeline / part, place)
    file = models / "vae" / "apart.safetensors"
    file.parent.mkdir(exist_ok=True)
    notes = {"config": (pipeline / "vae" / "config.json").read_text()}
    save_file(load_file(tiny.weights_of(pipeline / "vae")), file, notes)
    yield {"model": "apart", "text_encoder": "apart", "vae": file.name}
    for place in places:
        shutil.rmtree(place)
    file.unlink()


def test_on_three_parts_apart(client, files, apart):
    """Seed 000 loads the text encoder's folder, the transformer's folder and the VAE's file, then the LoRA."""
    whole = latents(client, sampling((files["exvideo"], 1.0)))
    graph = sampling((files["exvideo"], 1.0))
    graph["loader"] = loader(**apart)
    assert same(latents(client, graph), whole)
