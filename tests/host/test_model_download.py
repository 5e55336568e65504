"""Model Download on a real ComfyUI, against a hub on the loopback: what lands where, what is told, how it ends."""

import os
import sys
from pathlib import Path

import pytest

from kinetograph.tests.host.graphs import node
from kinetograph.tests.hub import Hub, sha256_of
from kinetograph.tools.server import Server

LORA, SOURCE = "ExVideo-CogVideoX LoRA", "ECNU-CILab/ExVideo-CogVideoX-LoRA-129f-v1"
FILE = "ExVideo-CogVideoX-LoRA-129f-v1.safetensors"
PAN, ORIGINALS = "MotionLoRA PanLeft", "guoyww/animatediff"
FOLDER, COG = "CogVideoX 5B VAE", "zai-org/CogVideoX-5b"
FILES = {
    SOURCE: {FILE: os.urandom(400_000), "README.md": b"# words"},
    ORIGINALS: {"v2_lora_PanLeft.ckpt": os.urandom(300_000)},
    COG: {
        "vae/config.json": b'{"latent_channels": 16}',
        "vae/diffusion_pytorch_model.safetensors": os.urandom(200_000),
        "vae/diffusion_pytorch_model.bin": b"a pickle",
        "transformer/config.json": b"{}",
    },
    "stabilityai/stable-video-diffusion-img2vid-xt": {"svd_xt.safetensors": b"not the published one"},
}


@pytest.fixture(scope="module")
def hub():
    with Hub(FILES) as hub:
        yield hub


@pytest.fixture
def faults(hub):
    yield hub.faults
    hub.faults.clear()


@pytest.fixture(scope="module")
def served(hub, host, tmp_path_factory):
    variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_secret"}
    with Server(Path(sys.executable), host, tmp_path_factory.mktemp("hub"), variables=variables) as server:
        yield server


def ask(release, with_needs=False):
    return {
        "download": node("KinetographModelDownload", release=release, with_needs=with_needs),
        "shown": node("PreviewAny", source=["download", 0]),
    }


def test_a_release_lands_in_its_folder_and_in_the_lists(served, hub):
    result = served.client.run(ask(LORA))
    assert result.status == "success", result.message
    place = served.base / "models" / "loras" / FILE
    assert place.read_bytes() == FILES[SOURCE][FILE]
    report = result.outputs["download"]["text"][0]
    for word in (
        str(place),
        "400,000 bytes",
        sha256_of(FILES[SOURCE][FILE]),
        "not pinned by us",
        hub.commit(SOURCE),
    ):
        assert word in report
