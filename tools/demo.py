"""One prompt or picture through the real ComfyUI: a video file and a contact sheet come out."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .client import Client, Result
from .commands import ROOT, Trouble, python_path
from .server import Server

MODELS = ROOT / "pocket" / "models"
OUTPUT = ROOT / "output"
POCKET = MODELS / "CogVideo" / "pocket-cogvideox"
LATENT = "KinetographVideoLatent"
SAVER = "KinetographVideoCombine"
BAR_WIDTH = 30

Prompt = dict[str, Any]


def run(host: Path, prompt: str, image: Path | None, cpu: bool) -> int:
    """Make the video and check it. Returns 0 only when the file holds the frames and size asked for."""
    if image is not None and not image.is_file():
        raise Trouble(f"There is no picture at {image}.")
    if not (POCKET / "transformer" / "config.json").is_file():
        raise Trouble(f"The pocket model is not at {POCKET}. Is this a complete copy of the repository?")
    OUTPUT.mkdir(exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="kinetograph-"))
    arguments = ["--output-directory", str(OUTPUT)]
    try:
        print("Starting ComfyUI", flush=True)
        with Server(python_path(), host, base, cpu=cpu, models=MODELS, arguments=arguments) as server:
            print(f"ComfyUI is up at {server.client.address}", flush=True)
            video, asked = _make(server.client, prompt, image)
        return _check(video, asked)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _make(client: Client, text: str, image: Path | None) -> tuple[Path, tuple[int, int, int]]:
    """The finished file, and the frames, width and height that were asked for."""
    name = "try_cogvideox_image" if image else "try_cogvideox"
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    asked = ask_native_size(graph)
    prompt_node(graph)["inputs"]["text"] = text
    only_node(graph, SAVER)["inputs"]["filename_prefix"] = "demo"
    if image:
        only_node(graph, "LoadImage")["inputs"]["image"] = client.upload(image)
    result = client.run(graph, _Progress(graph), timeout=900)
    if result.status != "success" or result.node_errors:
        raise Trouble(f"ComfyUI did not make the video ({result.status}):\n{result.message}")
    return _video_of(result), asked


def ask_native_size(graph: Prompt) -> tuple[int, int, int]:
    """Write the pocket model's own frames, width and height into the graph, and return them."""
    config = json.loads((POCKET / "transformer" / "config.json").read_text(encoding="utf-8"))
    vae = json.loads((POCKET / "vae" / "config.json").read_text(encoding="utf-8"))
    cell = 2 ** (len(vae["block_out_channels"]) - 1)  # pixels to a latent cell
    frames, width, height = (
        config["sample_frames"],
        config["sample_width"] * cell,
        config["sample_height"] * cell,
    )
    only_node(graph, LATENT)["inputs"].update(num_frames=frames, width=width, height=height)
    return frames, width, height


def nodes_of(graph: Prompt, kind: str) -> list[Any]:
    return [node for node in graph.values() if node["class_type"] == kind]


def only_node(graph: Prompt, kind: str) -> Any:
    found = nodes_of(graph, kind)
    if len(found) != 1:
        raise ValueError(f"The workflow holds {len(found)} nodes of the kind {kind}, one was expected.")
    return found[0]


def prompt_node(graph: Prompt) -> Any:
    """The text node titled "Prompt"."""
    titled = [node for node in nodes_of(graph, "CLIPTextEncode") if node["_meta"]["title"] == "Prompt"]
    if len(titled) != 1:
        raise ValueError(f'The workflow holds {len(titled)} text nodes titled "Prompt", one was expected.')
    return titled[0]


def _video_of(result: Result) -> Path:
    for file in result.files():
        if file["filename"].endswith(".mp4"):
            return OUTPUT / file.get("subfolder", "") / file["filename"]
    raise Trouble(f"ComfyUI reported success and named no mp4 file: {result.files()}")


def _check(video: Path, asked: tuple[int, int, int]) -> int:
    """Reopen the file in the environment, count its frames, and lay them out on a sheet."""
    sheet = video.with_suffix(".png")
    script = Path(__file__).with_name("contact_sheet.py")
    done = subprocess.run([str(python_path()), str(script), str(video), str(sheet), *map(str, asked)])
    if done.returncode:
        return done.returncode
    print(f"Video: {video}\nContact sheet: {sheet}", flush=True)
    return 0


class _Progress:
    """Draws what the event stream tells: the node at work, and a bar where it counts."""

    def __init__(self, graph: Prompt):
        self._graph = graph
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._last = ""

    def __call__(self, kind: str, data: Any) -> None:
        if kind == "executing" and data["node"] is not None:
            self._say(self._title(data["node"]), end="\n")
        elif kind == "progress" and (self._live or data["value"] == data["max"]):
            done = BAR_WIDTH * data["value"] // max(1, data["max"])
            bar = "#" * done + "." * (BAR_WIDTH - done)
            self._say(f"  [{bar}] {data['value']}/{data['max']}", "\r" if self._live else "\n")

    def _title(self, node: str) -> str:
        entry = self._graph.get(node, {})
        return entry.get("_meta", {}).get("title") or entry.get("class_type", node)

    def _say(self, words: str, end: str) -> None:
        if self._last == "\r" and end == "\n":
            print()
        print(f"{time.monotonic() - self._started:6.1f} s  {words}", end=end, flush=True)
        self._last = end
