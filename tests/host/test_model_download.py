"""Model Download on a real ComfyUI, against a hub on the loopback: what lands where, what is told, how it ends."""

import os
import sys
import time
from pathlib import Path

import pytest

from kinetograph.tests.host.graphs import node
from kinetograph.tests.hub import Hub, sha256_of
from kinetograph.tools.server import Server

LORA, SOURCE = "ExVideo-CogVideoX LoRA", "ECNU-CILab/ExVideo-CogVideoX-LoRA-129f-v1"
FILE = "ExVideo-CogVideoX-LoRA-129f-v1.safetensors"
PAN, ORIGINALS = "MotionLoRA PanLeft", "guoyww/animatediff"
VAE, COG = "CogVideoX 5B VAE", "zai-org/CogVideoX-5b"
# seconds; Cancel ends in less than one on a quiet machine
STALL = 15.0
FILES = {
    SOURCE: {FILE: os.urandom(400_000), "README.md": b"# words"},
    ORIGINALS: {"v2_lora_PanLeft.ckpt": os.urandom(3_000_000)},
    COG: {
        "vae/config.json": b'{"latent_channels": 16}',
        "vae/diffusion_pytorch_model.safetensors": os.urandom(200_000),
        "vae/diffusion_pytorch_model.bin": b"a pickle",
        "transformer/config.json": b"{}",
    },
    "stabilityai/stable-video-diffusion-img2vid-xt": {"svd_xt.safetensors": b"not the published one"},
}
STORE = "https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/easyanimate"


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
    """A server that knows a token by its environment, by a login file and by a netrc."""
    home = tmp_path_factory.mktemp("home")
    (home / "token").write_text("hf_secret_of_the_login_file")
    (home / "netrc").write_text("machine localhost login me password hf_secret_of_netrc")
    variables = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(home),
        "NETRC": str(home / "netrc"),
    }
    with Server(Path(sys.executable), host, tmp_path_factory.mktemp("hub"), variables=variables) as server:
        yield server


def ask(release, with_needs=False):
    return {
        "download": node("KinetographModelDownload", release=release, with_needs=with_needs),
        "shown": node("PreviewAny", source=["download", 0]),
    }


def choices(server, kind, name):
    (told,) = server.client.get_json(f"/object_info/{kind}").values()
    first, *rest = told["input"]["required"][name]
    return first if isinstance(first, list) else rest[0]["options"]


def parts(server):
    return [path.read_bytes() for path in (server.base / "models").rglob("*.part")]


def test_the_node_offers_every_release_and_chooses_svd_xt(served):
    from kinetograph.modules.families import RELEASES

    offered = choices(served, "KinetographModelDownload", "release")
    assert offered == [release.name for release in RELEASES if release.folder]
    (told,) = served.client.get_json("/object_info/KinetographModelDownload").values()
    assert told["input"]["required"]["release"][1]["default"] == "SVD-XT" and told["output_node"]


def test_a_release_lands_in_its_folder_and_in_the_lists(served, hub):
    assert FILE not in choices(served, "LoraLoader", "lora_name")
    result = served.client.run(ask(LORA))
    assert result.status == "success", result.message
    place = served.base / "models" / "loras" / FILE
    assert place.read_bytes() == FILES[SOURCE][FILE]
    assert FILE in choices(served, "LoraLoader", "lora_name")
    (report,) = result.outputs["download"]["text"]
    assert result.outputs["shown"]["text"] == [report]
    words = (
        str(place),
        "400,000 bytes",
        sha256_of(FILES[SOURCE][FILE]),
        "not pinned by us",
        hub.commit(SOURCE),
    )
    assert [word for word in words if word not in report] == []


def test_the_plan_is_on_the_node_before_the_first_byte(served, hub, faults):
    """And the bar moves over bytes."""
    faults["v2_lora_PanLeft.ckpt"].slow = 0.002
    sent = []

    def listen(kind, data):
        if kind == "preview" and b"to fetch" in data:
            sent.append((hub.sent, data.decode(errors="replace")))

    before = hub.sent
    result = served.client.run(ask(PAN), listen)
    assert result.status == "success", result.message
    (then, plan), (_, report) = sent[0], (0, result.previews[-1].decode(errors="replace"))
    assert result.outputs["download"]["text"][0] in report
    assert then < before + 1_000_000
    for word in (
        "download",
        "3.00 MB in 1 file",
        "licence: apache-2.0",
        "animatediff_motion_lora",
        "free",
        hub.address,
    ):
        assert word in plan
    moves = [data["value"] for kind, data in result.events if kind == "progress" and data["max"] == 3_000_000]
    assert moves == sorted(moves) and len(moves) > 1 and moves[-1] == 3_000_000


def test_a_folder_is_one_entry_of_the_loader(served):
    result = served.client.run(ask(VAE))
    assert result.status == "success", result.message
    folder = served.base / "models" / "CogVideo" / "CogVideoX-5b" / "vae"
    assert {path.name for path in folder.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert "CogVideo/CogVideoX-5b/vae" in choices(served, "KinetographCogVideoXLoader", "vae")


def test_a_second_run_is_quick_and_a_removed_file_comes_again(served, hub):
    # one that may fetch it, one that finds it there, one that the host answers by itself
    for _ in range(3):
        result = served.client.run(ask(LORA))
        assert result.status == "success", result.message
    assert "download" in result.cached
    place, sent = served.base / "models" / "loras" / FILE, hub.sent
    place.unlink()
    result = served.client.run(ask(LORA))
    assert "download" not in result.cached and place.exists() and hub.sent == sent + 400_000
    place.unlink()
    served.client.run(ask(LORA))
    assert place.exists()


def test_cancel_waits_for_no_stalled_connection_and_keeps_the_part(served, faults):
    place = served.base / "models" / "animatediff_motion_lora" / "v2_lora_PanLeft.ckpt"
    place.unlink(missing_ok=True)
    # the connection stands and brings nothing more
    faults[place.name].stalls_at, faults[place.name].stalls = 1_000_000, STALL
    pressed = []

    def cancel(kind, data):
        if kind == "progress" and data["value"] > 10_000 and not pressed:
            pressed.append(time.monotonic())
            served.client.interrupt()

    result = served.client.run(ask(PAN), cancel)
    assert result.status == "interrupted" and time.monotonic() - pressed[0] < STALL / 2
    (part,) = parts(served)
    assert FILES[ORIGINALS][place.name].startswith(part) and not place.exists()
    faults.clear()
    assert served.client.run(ask(PAN)).status == "success"
    assert place.read_bytes() == FILES[ORIGINALS][place.name] and parts(served) == []


def test_another_file_than_the_published_is_refused(served, hub):
    sent = hub.sent
    result = served.client.run(ask("SVD-XT"))
    assert result.status == "error" and "another one than the published" in result.message
    assert "9559625980" in result.message and hub.sent == sent


def test_what_lies_elsewhere_is_told_with_its_line(served):
    result = served.client.run(ask("EasyAnimate v1"))
    assert result.status == "error"
    place = served.base / "models" / "Motion_Module" / "easyanimate_v1_mm.safetensors"
    line = f'curl -L -C - --create-dirs -o "{place}" {STORE}/Motion_Module/easyanimate_v1_mm.safetensors'
    assert line in result.message.splitlines()
    archive = served.client.run(ask("PixArt-alpha 512, folders in one archive"))
    assert (
        "tar -xf" in archive.message
        and f"{STORE}/Diffusion_Transformer/PixArt-XL-2-512x512.tar" in archive.message
    )


@pytest.mark.parametrize("status, words", [(403, "accept its terms there"), (404, "no such file")])
def test_faults_are_told_in_words(served, faults, status, words):
    place = served.base / "models" / "loras" / FILE
    place.unlink(missing_ok=True)
    faults[FILE].status = status
    result = served.client.run(ask(LORA))
    assert result.status == "error" and words in result.message
    assert not place.exists() and parts(served) == []


def test_an_unknown_release_is_told_at_the_post(served):
    result = served.client.run(ask("SVDXT"))
    assert result.status == "refused" and "such as SVD-XT" in result.message
    assert result.message.count("There is no release") == 1


def test_no_request_held_a_token(served, hub):
    assert len(hub.requests) > 10
    assert "hf_secret" not in str(hub.requests)
    assert [entry for entry in hub.requests if "authorization" in {*map(str.lower, entry[2])}] == []


def test_the_pockets_folder_is_never_written_to(comfy_here):
    from kinetograph.nodes.host import folders
    from kinetograph.nodes.pipeline.downloads import DOWNLOADS
    from kinetograph.nodes.pipeline.models import MODELS

    MODELS.register()
    for key in {release.folder for release in DOWNLOADS.values()}:
        paths = folders.paths_of(key)
        assert paths and not any(path.is_relative_to(folders.POCKET) for path in paths)


def test_without_leave_nothing_is_fetched(client):
    """The server of all other tests may not connect."""
    result = client.run(ask(LORA))
    assert result.status == "error" and "HF_HUB_OFFLINE is set" in result.message
