"""The host's own LoRA loader on our MODEL, with a file whose names were brought into its reach."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kinetograph.modules.families import FAMILIES
from kinetograph.modules.weights.lora import read_lora, renamed
from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import node, text_to_video, with_frames


@pytest.fixture(scope="module")
def lora(base):
    """A file in PEFT naming as CogVideoX LoRAs are published, and the same with the host's names."""
    weights = load_file(tiny.weights_of(base / "models" / "CogVideo" / "tiny-5B" / "transformer"))
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for key, tensor in weights.items():
        if key.endswith(("to_q.weight", "to_v.weight", "ff.net.2.weight")):
            module = "transformer." + key.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = torch.randn(2, tensor.shape[1], generator=generator)
            tensors[f"{module}.lora_B.weight"] = torch.randn(tensor.shape[0], 2, generator=generator)
    part = FAMILIES[0].parts["diffusion_model"]
    found = read_lora("lora", {key: tuple(value.shape) for key, value in tensors.items()}, part, shapes)
    folder = base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(renamed(tensors, found), folder / "tiny-lora.safetensors")
    return "tiny-lora.safetensors"


def frames(client, lora, strength, preview=False):
    """`preview` changes nothing in the clip, but keeps the host from answering out of its cache."""
    graph = with_frames(text_to_video(frames=5, steps=1, preview=preview))
    if lora:
        graph["lora"] = node(
            "LoraLoaderModelOnly", model=["loader", 0], lora_name=lora, strength_model=strength
        )
        graph["sampler"]["inputs"]["model"] = ["lora", 0]
    result = client.run(graph)
    assert result.status == "success", result.message
    assert "sampler" not in result.cached
    return np.stack([np.asarray(Image.open(io.BytesIO(client.view(file)))) for file in result.files()])


def test_the_hosts_lora_loader_changes_the_clip_and_leaves_nothing_behind(client, lora):
    plain = frames(client, None, 0.0)
    strong = frames(client, lora, 1.0)
    assert not np.array_equal(strong, plain)
    assert not np.array_equal(frames(client, lora, 0.5), strong)
    assert np.array_equal(frames(client, None, 0.0, preview=True), plain)
