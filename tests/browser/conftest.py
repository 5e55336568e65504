"""One ComfyUI with the pocket models, one Chromium, and pages of it."""

import json
import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from kinetograph.tests import packs
from kinetograph.tests.browser.tab import Tab
from kinetograph.tests.host import stand_ins
from kinetograph.tests.host.conftest import host, orderly_end  # noqa: F401  as the tests of the host have them
from kinetograph.tests.hub import Hub
from kinetograph.tools import chromium, prompts
from kinetograph.tools.server import Server

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = sorted((ROOT / "workflows" / "api").glob("*.json"))
# no address but this machine's own is looked up; drawing needs no graphics card
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]
MOTION_LORAS, SVD_XT = "guoyww/animatediff", "stabilityai/stable-video-diffusion-img2vid-xt"
PUBLISHED = {
    MOTION_LORAS: ("v2_lora_TiltUp.ckpt", "v2_lora_TiltDown.ckpt", "v2_lora_ZoomOut.ckpt"),
    SVD_XT: ("svd_xt.safetensors",),
}
WINDOW = {"width": 1600, "height": 1000}
# the page greets no newcomer, and has no panel open that an earlier page opened
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.RightSidePanel.IsOpen": False}


@pytest.fixture(scope="session")
def hub():
    """Where published files come from: something under every name that the tests ask for."""
    files = {source: {name: os.urandom(400_000) for name in names} for source, names in PUBLISHED.items()}
    with Hub(files) as hub:
        yield hub


@pytest.fixture(scope="session")
def server(host, hub, tmp_path_factory):  # noqa: F811
    """ComfyUI with the pocket models, and with stand-ins for every file that a template names."""
    base = tmp_path_factory.mktemp("page")
    stand_ins.write_samples(base / "input")
    stand_ins.write(base / "models")
    name_checkpoints(base / "models" / "checkpoints")
    variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
    with Server(Path(sys.executable), host, base, arguments=packs.link(base), variables=variables) as server:
        yield server


def name_checkpoints(folder):
    """Empty files by the names that CheckpointLoaderSimple has in templates: enough to be in its list."""
    for path in PROMPTS:
        for loader in prompts.nodes_of(
            json.loads(path.read_text(encoding="utf-8")), "CheckpointLoaderSimple"
        ):
            (folder / loader["inputs"]["ckpt_name"]).touch()


@pytest.fixture(scope="session")
def browser():
    program = chromium.find()
    if program is None:
        pytest.skip(f"There is {chromium.MISSING}.")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def new_tab(browser, server):
    """A function that opens the page with nothing in its memory: ids of nodes collide over tabs."""

    def open_page():
        server.client.post("/settings", json.dumps(SETTINGS).encode())
        context = browser.new_context(viewport=WINDOW)
        return Tab(context.new_page(), server.client.address)

    return open_page


@pytest.fixture
def tab(new_tab, server, request):
    """A fresh page; what it showed last is kept for people, and what it still has in the queue is not."""
    tab = new_tab()
    yield tab
    tab.screenshot(request.node.name)
    tab.page.context.close()
    server.client.post("/queue", b'{"clear": true}')
    server.client.interrupt()


@pytest.fixture(scope="session")
def schemas(server):
    return server.client.get_json("/object_info")
