"""`python tools/pack.py kinetograph.benchmarks.vram`: README's memory of a card for every network, to results/vram.json.

Measured where a card was at hand: most of it used while the rest was taken away. Predicted elsewhere: weights in 16
bits and the peak of a guided step, or of decoding where that is more, all of it on the card, counted on the meta
device. ComfyUI keeps less there when there is less, at the price of time. The text encoder is not in it: it is done when
sampling starts. Of AnimateDiff the UNet is the host's: diffusers' of the same sizes stands in for it.
"""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from . import ours, peers
from .memory import peak_live_bytes

RESULTS = Path(__file__).resolve().parent / "results"
GIB = 2**30
GUIDED = 2  # halves of guidance in one batch
HALF = torch.float16
TEXT_TOKENS = 77
# run on a card of which 8 GiB were left
MEASURED = {
    "SVD-XT": "card: svd on 8 GiB",
    "ExVideo-SVD": "card: exvideo on 8 GiB",
    "CogVideoX 5B": "card: 5b bf16 on 8 GiB",
}
# of a file whose layers go into another network: that network
BASES = {"extension": ("svd", "UNet"), "motion_module": ("pixart", "512")}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
    "up_block_types": ("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
    "transformer_layers_per_block": (1, 2, 10),
    "reverse_transformer_layers_per_block": (10, 2, 1),
    "temporal_transformer_layers_per_block": 1,
    "num_attention_heads": (5, 10, 20),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_motion_mid_block": False,
}


def estimate(release: Any, family: Any) -> float:
    """GiB of a guided step of a release, or of decoding where that is more."""
    if family.id == "animatediff":
        return animatediff_step(release.size) / GIB
    whole = guided_step(release, family)
    return max(whole, decoding(release.size) if family.id == "cogvideox" else 0) / GIB


@torch.inference_mode()
def guided_step(release: Any, family: Any) -> int:
    """Bytes of a network of ours, with what goes into it, and of the peak of a step."""
    records, families = (
        importlib.import_module(f"{ours.PACK}.modules.families{end}") for end in ("", ".family")[::-1]
    )
    host, variant = BASES.get(release.kind, (family.id, release.variant))
    base = next(known for known in families.FAMILIES if known.id == host)
    config = _config(base.parts["diffusion_model"], variant)
    model = ours.network(host, "diffusion_model", config, HALF, "meta")
    width, height, frames = release.size
    with torch.device("meta"):
        given = base.network.inputs(config, records.Clip(width, height, frames, GUIDED))
    inputs = {name: _in_half(value) for name, value in given.items()}
    beside = 0
    if release.kind == "motion_module":
        part = family.parts[release.kind]
        _build(part, release.variant).put_into(model)  # type: ignore[operator]
        inputs["num_video_frames"] = frames
    elif release.kind == "extension":
        beside = _bytes(_build(family.parts[release.kind], release.variant))
    return _bytes(model) + beside + peak_live_bytes(partial(model, **inputs))


@torch.inference_mode()
def decoding(size: tuple[int, int, int]) -> int:
    """Bytes of CogVideoX's autoencoder and of the peak of decoding a clip as a stream."""
    width, height, frames = size
    model = ours.network("cogvideox", "vae", ours.config("cogvideox", "vae"), HALF, "meta")
    z = torch.zeros(1, 16, (frames + 3) // 4, height // 8, width // 8, dtype=HALF, device="meta")

    def decode() -> None:
        for chunk in model.decode_stream(z):  # type: ignore[operator]
            del chunk

    return _bytes(model) + peak_live_bytes(decode)


@torch.inference_mode()
def animatediff_step(size: tuple[int, int, int]) -> int:
    """Bytes of diffusers' UNet with motion modules and of the peak of a step."""
    width, height, frames = size
    large = width > 512
    config: dict[str, Any] = SDXL if large else {"num_attention_heads": 8}
    width_of_text = 2048 if large else 768
    with torch.device("meta"):
        model = peers.load_diffusers().UNetMotionModel(cross_attention_dim=width_of_text, **config)
        model = model.to(HALF).eval()
        x = torch.empty(GUIDED, 4, frames, height // 8, width // 8, dtype=HALF)
        text = torch.empty(GUIDED * frames, TEXT_TOKENS, width_of_text, dtype=HALF)
        added = {"text_embeds": torch.empty(GUIDED, 1280, dtype=HALF), "time_ids": torch.empty(GUIDED, 6)}
        step = partial(model, x, torch.tensor(1.0), text, added_cond_kwargs=added if large else None)
        return _bytes(model) + peak_live_bytes(step)


def measured(step: str) -> float:
    """GiB that a run on a card of 8 GiB used at most."""
    rows = json.loads((RESULTS / "nvidia-h200.json").read_text(encoding="utf-8"))["rows"]
    return next(row["most_used_gib"] for row in rows if row["step"] == step and "most_used_gib" in row)


def table() -> dict[str, dict[str, Any]]:
    """Release -> GiB, and whether that was measured."""
    families = importlib.import_module(f"{ours.PACK}.modules.families").FAMILIES
    rows: dict[str, dict[str, Any]] = {}
    for family in families:
        for release in family.releases:
            if release.size and release.name in MEASURED:
                rows[release.name] = {"gib": round(measured(MEASURED[release.name]), 1), "measured": True}
            elif release.size:
                rows[release.name] = {"gib": round(estimate(release, family), 1), "measured": False}
                print(release.name, rows[release.name]["gib"], flush=True)
    return rows


def main() -> int:
    (RESULTS / "vram.json").write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
    return 0


def _config(part: Any, variant: str) -> Any:
    """Of the published file of a variant; the part's only one where no variants are told apart."""
    return next((config for config in part.published if part.variant(config) == variant), None) or (
        get_type_hints(part.read_config)["return"]()
    )


def _build(part: Any, variant: str) -> nn.Module:
    return part.build(_config(part, variant), dtype=HALF, device="meta").eval()


def _in_half(value: Any) -> Any:
    return value.to(HALF) if torch.is_tensor(value) and value.is_floating_point() else value


def _bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


if __name__ == "__main__":
    sys.exit(main())
