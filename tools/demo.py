"""One prompt or picture through the real ComfyUI: a video file and a contact sheet come out."""

import json
import subprocess
from pathlib import Path

from . import prompts, session
from .client import Result
from .commands import ROOT, Trouble, python_path
from .prompts import Prompt, only_node, prompt_node
from .server import Server

MODELS = ROOT / "pocket" / "models"
OUTPUT = ROOT / "output"
POCKET = MODELS / "CogVideo" / "pocket-cogvideox"
LATENT = "KinetographVideoLatent"
SAVER = "KinetographVideoCombine"
PATIENCE = 900.0  # seconds


def run(host: Path, prompt: str, image: Path | None, cpu: bool) -> int:
    """Make the video and check it. Returns 0 only when the file holds the frames and size asked for."""
    if image is not None and not image.is_file():
        raise Trouble(f"There is no picture at {image}.")
    if not (POCKET / "transformer" / "config.json").is_file():
        raise Trouble(f"The pocket model is not at {POCKET}. Is this a complete copy of the repository?")
    with session.comfy(host, OUTPUT, cpu=cpu, models=[MODELS]) as server:
        video, asked = _make(server, prompt, image)
    return _check(video, asked)


def _make(server: Server, text: str, image: Path | None) -> tuple[Path, tuple[int, int, int]]:
    """The finished file, and the frames, width and height that were asked for."""
    graph = prompts.read("try_cogvideox_image" if image else "try_cogvideox")
    asked = ask_native_size(graph)
    prompt_node(graph)["inputs"]["text"] = text
    only_node(graph, SAVER)["inputs"]["filename_prefix"] = "demo"
    if image:
        only_node(graph, "LoadImage")["inputs"]["image"] = server.client.upload(image)
    return _video_of(session.make(server, graph, PATIENCE)), asked


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
