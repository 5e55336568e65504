"""Writes the trained parts as one file in svd_xt's own layout, fp16, with what no shape tells in its metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..progress import read_log
from ..ship import half, rows_of
from .latents import preview_factors
from .train_unet import settings, trained_unet
from .train_vae import build_vae
from .vision import HEADS, open_clip_names, open_vision

FOLDER = Path(__file__).resolve().parents[1] / "models" / "SVD"
MODEL = FOLDER / "pocket-svd.safetensors"
PATCH = FOLDER / "pocket-exvideo.safetensors"
LOG = FOLDER / "pocket-svd.json"
UNET = "model.diffusion_model."
VAE = "first_stage_model."
PICTURE_VAE = "conditioner.embedders.3.encoder."
CLIP = "conditioner.embedders.0.open_clip.model."


def model_settings() -> dict[str, Any]:
    """The words that the pack reads from a file's metadata beside its shapes."""
    factors, bias = preview_factors()
    told = {key: settings()[key] for key in ("head_dim", "num_frames", "width", "height")}
    return told | {
        "image_encoder_heads": HEADS,
        "latent_rgb_factors": factors,
        "latent_rgb_bias": bias,
    }


@torch.no_grad()
def fold_quant(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder without its pointwise convolution, which goes into the convolution before it."""
    quant, bias = weights["quant_conv.weight"].flatten(1), weights["quant_conv.bias"]
    folded = {key: value for key, value in weights.items() if not key.startswith("quant_conv.")}
    folded["encoder.conv_out.weight"] = torch.einsum(
        "oi,ichw->ochw", quant, weights["encoder.conv_out.weight"]
    )
    folded["encoder.conv_out.bias"] = quant @ weights["encoder.conv_out.bias"] + bias
    return folded


def trained_vae(encoder_run: Path, decoder_run: Path) -> nn.Module:
    """The autoencoder from the two halves' last saved steps."""
    vae = build_vae()
    halves = {
        encoder_run: nn.ModuleList([vae.encoder, vae.quant_conv]),
        decoder_run: vae.decoder,
    }
    for run, part in halves.items():
        part.load_state_dict(torch.load(run / "state.pt", weights_only=True)["model"])
    return vae.eval()


def ship_svd(runs: Path, file: Path = MODEL) -> None:
    """UNet, autoencoder, image encoder and CLIP to one file."""
    vae = dict(trained_vae(runs / "svd_encoder", runs / "svd_decoder").state_dict())
    picture = {key: value for key, value in vae.items() if not key.startswith("decoder.")}
    clip = open_clip_names(dict(open_vision(runs / "svd_vision").state_dict()))
    parts = {
        UNET: dict(trained_unet(runs / "svd_unet")[0].state_dict()),
        VAE: fold_quant(vae),
        PICTURE_VAE: picture,
        CLIP: clip,
    }
    weights = {prefix + key: value for prefix, part in parts.items() for key, value in half(part).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file, metadata={"format": "pt", "config": json.dumps(model_settings())})


def write_log(runs: Path, file: Path = LOG) -> None:
    """Losses of every part and what was seen on the way, one row a line."""
    parts = {name: runs / f"svd_{name}" for name in ("vision", "encoder", "decoder", "unet")}
    rows = {name: read_log(run / "log.jsonl") for name, run in parts.items()}
    rows["unet_checks"] = read_log(parts["unet"] / "checks.jsonl")
    lines = [f'  "{name}": {rows_of(part)}' for name, part in rows.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
