"""The nineteen clips of EasyAnimate v1's gallery, each a shipped workflow with another prompt and size.

`python tools/pack.py kinetograph.tests.host.gallery` makes all of them with all their steps on the tiny model, and one
as a video; CI makes them with two.
"""

import json
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from kinetograph.modules.families.easyanimate.config import ROWS, GridConfig
from kinetograph.modules.layers.temporal_block import BlockSizes
from kinetograph.tests import packs, tiny_pixart
from kinetograph.tests.host.graphs import node
from kinetograph.tools import hosts, prompts
from kinetograph.tools.server import Server

ROOT = Path(__file__).resolve().parents[2]
ROWS_OF_GALLERY = json.loads((ROOT / "tests" / "easyanimate_gallery.json").read_text(encoding="utf-8"))
SAMPLERS = {"DPM++": "dpmpp_2m", "Euler A": "euler_ancestral"}
WORKFLOWS = {
    "PixArt": "easyanimate_text_to_video",
    "Portrait": "easyanimate_portrait",
    "Pixart + Lora": "easyanimate_portrait_lora",
}
SAMPLER, LATENT, SAVER = (
    f"Kinetograph{name}" for name in ("VideoSampler", "VideoLatent", "VAEDecodeToVideo")
)
# a network as small as one can be, so that 80 frames of 512x512 take seconds
NARROW = {"num_attention_heads": 1, "attention_head_dim": 32, "num_layers": 1, "cross_attention_dim": 32}
NARROW_GRID = GridConfig(num_layers=1, width=32, block=BlockSizes(ROWS, attentions=1))


def serve(host, base, python=sys.executable):
    """A server with that network under the names of the published files."""
    tiny_pixart.write_published(base / "models", NARROW_GRID, **NARROW)
    # the host's other kernel for CPUs takes four times as long
    arguments = [*packs.link(base), "--use-pytorch-cross-attention"]
    return Server(Path(python), host, base, arguments=arguments)


def workflow_of(row):
    """The shipped API prompt of a row's base."""
    path = ROOT / "workflows" / "api" / f"{WORKFLOWS[row['base']]}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def prompt_of(row, **sampling):
    """The workflow with a row's prompt and size, up to the latents, which are saved."""
    graph = workflow_of(row)
    prompts.prompt_node(graph)["inputs"]["text"] = row["prompt"]
    size = {"width": row["width"], "height": row["height"], "num_frames": row["frames"]}
    prompts.only_node(graph, LATENT)["inputs"].update(size)
    prompts.only_node(graph, SAMPLER)["inputs"].update(preview=False, **sampling)
    (decoded,) = (number for number, each in graph.items() if each["class_type"] == SAVER)
    source = graph.pop(decoded)["inputs"]["latent"]
    return graph | {"latent": node("SaveLatent", samples=source, filename_prefix="gallery")}


def as_video(graph, row):
    """The same with the clip decoded to a file, by a VAE that takes no time."""
    saver = prompts.only_node(workflow_of(row), SAVER)
    saver["inputs"] |= {"vae": ["vae", 0], "latent": graph["latent"]["inputs"]["samples"]}
    return graph | {"vae": node("SquaresVAE"), "video": saver}


def latents_of(base, result, number="latent"):
    """What a Save Latent saved."""
    assert result.status == "success" and not result.node_errors, result.message
    (file,) = result.outputs[number]["latents"]
    return load_file(base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]


def shape_of(row):
    return row["frames"], 4, row["height"] // 8, row["width"] // 8


def main():
    """Every clip with its own steps, decoded to a video."""
    total = 0.0
    with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
        base = Path(folder)
        with serve(hosts.find(), base) as server:
            for row in ROWS_OF_GALLERY:
                result = server.client.run(as_video(prompt_of(row), row), timeout=3600)
                latents = latents_of(base, result)
                fine = tuple(latents.shape) == shape_of(row) and bool(latents.isfinite().all())
                total += result.seconds
                size = f"{row['height']}x{row['width']}x{row['frames']}"
                said = f"{row['base']:14} {row['sampler']:8} {size:12} {result.seconds:6.1f} s "
                sys.stdout.write(f"{said} {'as asked, finite' if fine else 'WRONG'}\n")
                sys.stdout.flush()
                if not fine:
                    return 1
    sys.stdout.write(f"{len(ROWS_OF_GALLERY)} clips in {total:.0f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
