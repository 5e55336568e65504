"""`python dev.py fetch` from a shell: what it prints, where things go, how it ends."""

import os
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

from kinetograph.tests.hub import Hub
from kinetograph.tools import fetch
from kinetograph.tools.commands import ROOT

LORA, SOURCE = "ExVideo-CogVideoX LoRA", "ECNU-CILab/ExVideo-CogVideoX-LoRA-129f-v1"
FILE = "ExVideo-CogVideoX-LoRA-129f-v1.safetensors"
CONTENT = os.urandom(600_000)
PROXIES = {"HTTP_PROXY": "", "http_proxy": "", "NO_PROXY": "localhost"}


@pytest.fixture
def hub():
    with Hub(
        {
            SOURCE: {FILE: CONTENT},
            "zai-org/CogVideoX-5b": {"vae/d.safetensors": b"v", "vae/config.json": b"{}"},
        }
    ) as hub:
        yield hub


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "ComfyUI" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def run(hub, capsys):
    """A function that runs the command: (exit status, what it printed, what it complained)."""

    def run(*arguments, **variables):
        with mock.patch.dict(os.environ, {"HF_ENDPOINT": hub.address, **PROXIES, **variables}):
            status = fetch.main(list(arguments))
        return (status, *capsys.readouterr())

    return run


def test_a_release_is_fetched_and_reported(run, models):
    status, said, complained = run(LORA, "--models", str(models), "--without-needs")
    assert status == 0 and (models / "loras" / FILE).read_bytes() == CONTENT
    assert "600.00 kB in 1 file" in said and str(models / "loras" / FILE) in said.splitlines()[-1]
    # no bar where nobody looks
    assert complained == ""


def test_several_names_and_a_look_at_what_is_there(run, models):
    run(LORA, "CogVideoX 5B VAE", "--models", str(models), "--without-needs")
    assert (models / "CogVideo" / "CogVideoX-5b" / "vae" / "d.safetensors").read_bytes() == b"v"
    (models / "loras" / FILE).write_bytes(bytes(600_000))
    assert run(LORA, "--models", str(models), "--without-needs")[0] == 0
    status, _, complained = run(LORA, "--models", str(models), "--without-needs", "--check")
    assert status == 1 and "is another file" in complained


def test_comfyui_path_says_where(run, models):
    assert run(LORA, "--without-needs", COMFYUI_PATH=str(models.parent))[0] == 0
    assert (models / "loras" / FILE).exists()


def test_files_in_folders_of_former_names_are_there(run, models, hub):
    hub.repositories["Kijai/CogVideoX-comfy"] = {"CogVideoX_1_0_5b_I2V_bf16.safetensors": b"network"}
    (models / "unet").mkdir()
    (models / "unet" / "CogVideoX_1_0_5b_I2V_bf16.safetensors").write_bytes(b"network")
    _, said, _ = run("CogVideoX 5B-I2V, one file", "--models", str(models), "--without-needs")
    assert "was there already" in said and hub.sent == 0


def test_nobody_says_where(run):
    with mock.patch.dict(os.environ):
        os.environ.pop("COMFYUI_PATH", None)
        status, _, complained = run(LORA)
    assert status == 1 and "--models" in complained
    assert "There is no folder" in run(LORA, "--models", "/nowhere/at/all")[2]


def test_an_unknown_release_and_a_wrong_hub(run, models):
    assert "such as SVD-XT" in run("SVDXT", "--models", str(models))[2]
    assert run(LORA, "--models", str(models), HF_ENDPOINT="http://mirror.example")[0] == 1


def test_the_list_names_all_with_their_pages(run):
    status, said, _ = run("--list")
    assert status == 0 and len(said.splitlines()) == len(fetch.DOWNLOADS)
    assert all(name in said and release.address in said for name, release in fetch.DOWNLOADS.items())


def test_a_name_is_wanted(run):
    with pytest.raises(SystemExit):
        run()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_keeps_the_part(hub, models):
    hub.faults[FILE].slow = 0.1
    command = [
        sys.executable,
        str(ROOT / "tools" / "pack.py"),
        "kinetograph.tools.fetch",
        LORA,
        "--without-needs",
    ]
    variables = {**os.environ, "HF_ENDPOINT": hub.address, **PROXIES}
    with subprocess.Popen(
        [*command, "--models", str(models)], env=variables, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 60
        while hub.sent < 50_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, complained = run.communicate(timeout=10)
    assert run.returncode == 130 and "the next run goes on from there" in complained
    (part,) = models.rglob("*.part")
    assert 0 < part.stat().st_size < len(CONTENT) and CONTENT.startswith(part.read_bytes())
    assert not (models / "loras" / FILE).exists()
