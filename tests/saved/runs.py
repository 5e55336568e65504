"""Runs saved and shipped workflows on a real ComfyUI, with this checkout of the pack or another one."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from kinetograph.pocket import datasets
from kinetograph.tests import sparse_files, tiny_pixart
from kinetograph.tests.host.graphs import node
from kinetograph.tests.saved import loras
from kinetograph.tools.commands import ROOT
from kinetograph.tools.server import PACK, Server

HERE = Path(__file__).parent
# A Control checkpoint of sorts: the image-to-video one without the table by which it is told from Control.
CONTROL, TABLE = "CogVideo/pocket-control.safetensors", "patch_embed.pos_embedding"
SAVER = "KinetographVideoCombine"
PATIENCE = 1800.0  # seconds for one workflow
# A list of files has its first one for a default: these come before the pocket models.
FIRST = {
    "SVD/a-svd.safetensors": "SVD/pocket-svd.safetensors",
    "SVD/a-exvideo.safetensors": "SVD/pocket-exvideo.safetensors",
    "SD/a-sd.safetensors": "SD/pocket-sd.safetensors",
    "animatediff_models/a-module.safetensors": "animatediff_models/pocket-motion.safetensors",
    "CogVideo/a-cogvideox.safetensors": "CogVideo/pocket-cogvideox-i2v.safetensors",
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_folder(folder):
    """{name: prompt or graph}, those with the same checkpoints one after another: the host keeps them loaded."""
    found = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda entry: checkpoints_of(entry[1])))


def checkpoints_of(prompt):
    """The settings of our loaders in a prompt, as a text."""
    parts = [part for part in prompt.values() if isinstance(part, dict) and "class_type" in part]
    return json.dumps([part["inputs"] for part in parts if part["class_type"].endswith("Loader")])


@contextmanager
def comfyui(host, base, pack=ROOT, supplies=ROOT):
    """A server with the pack of one checkout, and the pocket models and sample inputs of another."""
    plugins, models = base / "custom_nodes", supplies / "pocket" / "models"
    plugins.mkdir(parents=True, exist_ok=True)
    if pack != ROOT:
        (plugins / PACK).symlink_to(pack.resolve(), target_is_directory=True)
    for copy, original in FIRST.items():
        (base / "models" / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(models / original, base / "models" / copy)
    write_control(models / "CogVideo" / "pocket-cogvideox-i2v.safetensors", base / "models" / CONTROL)
    loras.write(base / "models" / "loras" / "saved", models / "CogVideo" / "pocket-cogvideox")
    write_sparse_control(base / "models" / "controlnet")
    write_pixart(base / "models" / "Diffusion_Transformer")
    write_fetched(base / "models" / "Personalized_Model")
    shutil.copytree(supplies / "workflows" / "input", base / "input", dirs_exist_ok=True)
    write_first_data(base / "input" / "a-data")
    datasets.write_folder("pan-left", base / "input" / "saved-clips", 2)
    with Server(Path(sys.executable), host, base, models=models) as running:
        yield running


def write_control(image_model, path):
    """A file of 32 channels that follows a clip: what it makes is no clip of anybody's, but the same each time."""
    with safe_open(image_model, "pt") as file:
        config = json.loads(file.metadata()["config"]) | {"use_learned_positional_embeddings": False}
        weights = {key: file.get_tensor(key) for key in file.keys() if key != TABLE}  # noqa: SIM118
    save_file(weights, path, metadata={"format": "pt", "config": json.dumps(config)})


def write_sparse_control(folder):
    """A SparseCtrl of no training for the pocket SD, and a copy that comes before it in a list."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a-sparsectrl", "saved-sparsectrl"):
        save_file(sparse_files.of_pocket(), folder / f"{name}.safetensors")


def write_pixart(folder):
    """A PixArt of no training, and another one that comes before it in a list and may be laid over it."""
    tiny_pixart.write_pipeline(folder / "saved-pixart")
    tiny_pixart.write_personalized(folder / "a-portrait.safetensors")


def write_fetched(folder):
    """A file of a release that lies at no hub: where it is there, Model Download has nobody to ask."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_pixart.write_lora(folder / "easyanimate_portrait_lora.safetensors")


def write_first_data(folder):
    """A data set that comes before that of the templates in a list."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (16, 16)).save(folder / "a.png")


def version_of(client):
    """The version of ComfyUI behind a client."""
    return client.get_json("/system_stats")["system"]["comfyui_version"]


def run(client, prompt, workflow=None):
    """The result of a prompt that must succeed; AssertionError with the server's words otherwise."""
    result = client.run(prompt, timeout=PATIENCE, workflow=workflow)
    assert result.status == "success" and not result.node_errors, f"{result.status}: {result.message}"
    return result


def with_raw_frames(prompt):
    """The prompt with the frames before they are encoded, as pictures."""
    savers = {number: part for number, part in prompt.items() if part["class_type"] == SAVER}
    raw = {
        f"{number}_raw": node("PreviewImage", images=part["inputs"]["images"])
        for number, part in savers.items()
    }
    return {**prompt, **raw}
