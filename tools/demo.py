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
LOADER = "KinetographCogVideoXLoader"
LATENT = "KinetographVideoLatent"
FROM_IMAGE = "KinetographImageToVideoConditioning"
BAR_WIDTH = 30

Prompt = dict[str, Any]


def run(host: Path, prompt: str, image: Path | None, cpu: bool) -> int:
    """Make the video and check it. Returns 0 only when the file holds the frames and size asked for."""
    if image is not None and not image.is_file():
        raise Trouble(f"There is no picture at {image}.")
    OUTPUT.mkdir(exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="kinetograph-"))
    arguments = ["--output-directory", str(OUTPUT)]
    try:
        print("Starting ComfyUI", flush=True)
        with Server(python_path(), host, base, cpu=cpu, models=MODELS, arguments=arguments) as server:
            print(f"ComfyUI is up at {server.client.address}", flush=True)
            video, graph = _make(server.client, prompt, image)
        return _check(video, graph)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _make(client: Client, text: str, image: Path | None) -> tuple[Path, Prompt]:
    name = "image_to_video" if image else "text_to_video"
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    use_pocket_model(client, graph, name)
    prompt_node(graph)["inputs"]["text"] = text
    if image:
        only_node(graph, "LoadImage")["inputs"]["image"] = client.upload(image)
    result = client.run(graph, _Progress(graph), timeout=900)
    if result.status != "success" or result.node_errors:
        raise Trouble(f"ComfyUI did not make the video ({result.status}):\n{result.message}")
    return _video_of(result), graph


def use_pocket_model(client: Client, graph: Prompt, kind: str) -> None:
    """Let every loader of the graph load the pocket checkpoint for this kind of task."""
    for node in nodes_of(graph, LOADER):
        options = combo_options(client, LOADER, "model")
        fitting = [option for option in options if "pocket" in option.lower()]
        if not fitting:
            raise Trouble(
                f"The pocket model is not among the host's models: {options}. Is {MODELS} complete?"
            )
        node["inputs"]["model"] = fitting[0]


def combo_options(client: Client, node: str, name: str) -> list[str]:
    """What a drop-down of a node offers."""
    inputs = client.get_json(f"/object_info/{node}")[node]["input"]
    kind, *rest = {**inputs.get("optional", {}), **inputs["required"]}[name]
    return kind if isinstance(kind, list) else rest[0]["options"]


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


def asked_size(graph: Prompt) -> tuple[int, int, int]:
    """Frames, width and height that the workflow asks for."""
    kinds = [LATENT, FROM_IMAGE]
    for node in (node for kind in kinds for node in nodes_of(graph, kind)):
        values = node["inputs"]
        if {"frames", "width", "height"} <= set(values):
            return values["frames"], values["width"], values["height"]
    raise ValueError("The workflow does not say how many frames of which size it makes.")


def _video_of(result: Result) -> Path:
    for file in result.files():
        if file["filename"].endswith(".mp4"):
            return OUTPUT / file.get("subfolder", "") / file["filename"]
    raise Trouble(f"ComfyUI reported success and named no mp4 file: {result.files()}")


def _check(video: Path, graph: Prompt) -> int:
    """Reopen the file in the environment, count its frames, and lay them out on a sheet."""
    sheet = video.with_suffix(".png")
    script = Path(__file__).with_name("contact_sheet.py")
    numbers = [str(number) for number in asked_size(graph)]
    done = subprocess.run([str(python_path()), str(script), str(video), str(sheet), *numbers])
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
