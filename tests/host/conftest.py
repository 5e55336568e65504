"""A real ComfyUI with this pack and tiny checkpoints, once per session.

KINETOGRAPH_HOST chooses it: a version that `dev.py` has fetched, or a ComfyUI folder.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kinetograph.tests import packs, tiny, tiny_pixart, tiny_svd
from kinetograph.tools import hosts
from kinetograph.tools.server import Server

UNREADABLE = "lost+found"


@pytest.fixture(scope="session", autouse=True)
def orderly_end():
    """Let a terminated test run take its servers down with it."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def host():
    """The ComfyUI folder under test."""
    wish = os.environ.get("KINETOGRAPH_HOST", hosts.NEWEST)
    folder = hosts.CACHE / f"comfyui-{wish}" if wish in hosts.CARRIERS else Path(wish)
    if not (folder / "main.py").exists():
        pytest.fail(f"No ComfyUI at {folder}: run `python dev.py test` once, it fetches one.")
    return folder


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The interpreter for a server that reads no more than an ordinary user may, also where the tests run as root."""
    limits = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.run([*limits, "true"], capture_output=True).returncode:
        return Path(sys.executable)
    script = tmp_path_factory.mktemp("python") / "python"
    script.write_text(f'#!/bin/sh\nexec {" ".join(limits)} "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """ComfyUI's base directory: tiny pipelines in models/CogVideo/tiny-VARIANT and models/SVD/tiny-svd, file and folder.

    With a folder that nobody may read, as drives have one."""
    base = tmp_path_factory.mktemp("base")
    for variant in tiny.VARIANTS:
        tiny.write_pipeline(base / "models" / "CogVideo" / f"tiny-{variant}", variant)
    tiny_svd.write_file(base / "models" / "SVD" / "tiny-svd.safetensors")
    tiny_svd.write_pipeline(base / "models" / "SVD" / "tiny-svd")
    (base / "models" / "SVD" / UNREADABLE).mkdir(mode=0)
    tiny_pixart.write_all(base / "models")
    return base


@pytest.fixture(scope="session")
def server(host, base, python):
    with Server(python, host, base, arguments=packs.link(base)) as server:
        yield server


@pytest.fixture
def client(server):
    """A browser tab; fails the test when the server did not survive it."""
    yield server.client
    assert server.is_running(), server.tail()


@pytest.fixture
def start_server(host, tmp_path):
    """A function that starts one more server on a base directory of its own, for tests that harm it."""
    started = []

    def start(*arguments, models_of=None):
        base = tmp_path / f"base{len(started)}"
        if models_of is not None:
            unreadable = shutil.ignore_patterns(UNREADABLE)
            shutil.copytree(models_of / "models", base / "models", ignore=unreadable)
        started.append(Server(Path(sys.executable), host, base, arguments=arguments).__enter__())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def comfy_here(host, base):
    """ComfyUI imported into this process, on the CPU, with `base` as its base directory."""
    command = ["main.py", "--cpu", "--base-directory", str(base)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        sys.path.insert(0, str(host))
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.model_management  # reads the arguments on import
        import nodes  # noqa: F401  the host's, which needs them as well
    import comfy

    return comfy
