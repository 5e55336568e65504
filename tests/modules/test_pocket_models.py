"""The shipped pocket model: small, complete, in the published layout, and its VAE keeps what matters."""

import json

import pytest
import torch
from safetensors.torch import load_file

from kinetograph.modules.families import COGVIDEOX
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket.detector import read_clip
from kinetograph.pocket.parts import (
    MODEL_FOLDER,
    ROOT,
    SCHEDULER_SETTINGS,
    TEXT_TOKENS,
    build_transformer,
    build_vae,
)
from kinetograph.pocket.shapes import all_subjects, draw_batch, sample_clip
from kinetograph.pocket.shipped import caption_features, shipped_vae, start_weights
from kinetograph.pocket.train_outlines import check_outlines

KINDS = {"transformer": "diffusion_model", "vae": "vae", "text_encoder": "text_encoder"}
MOST_BYTES = 24_000_000


def settings(part: str) -> dict:
    return json.loads((MODEL_FOLDER / part / "config.json").read_text(encoding="utf-8"))


def test_all_model_files_together_are_small():
    files = [file for file in (ROOT / "pocket" / "models" / "CogVideo").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


@pytest.mark.parametrize("part", KINDS)
def test_part_is_complete_and_half_precision(part):
    header = read_header(MODEL_FOLDER / part)
    finding = detect(header, (COGVIDEOX,), KINDS[part]).check()
    assert not finding.missing and not finding.unexpected
    assert finding.dtype == "float16"


def test_transformer_is_built_like_5b():
    config = detect(read_header(MODEL_FOLDER / "transformer"), (COGVIDEOX,), "diffusion_model").config
    assert config.variant == "5B"
    assert (config.head_dim, config.in_channels, config.max_text_tokens) == (64, 16, TEXT_TOKENS)


def test_schedule_is_that_of_5b():
    stored = json.loads((MODEL_FOLDER / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    assert stored == SCHEDULER_SETTINGS


def test_text_encoder_has_the_whole_table():
    assert read_header(MODEL_FOLDER / "text_encoder").shapes["shared.weight"] == (
        32128,
        settings("text_encoder")["d_model"],
    )


@torch.no_grad()
def test_vae_keeps_colour_shape_and_motion():
    vae = build_vae()
    weights = load_file(MODEL_FOLDER / "vae" / "diffusion_pytorch_model.safetensors")
    vae.load_state_dict({key: value.float() for key, value in weights.items()})
    subjects = all_subjects()[::11] + [all_subjects()[3]]
    clips = [sample_clip(70_000 + i, subject) for i, subject in enumerate(subjects)]
    x = draw_batch(clips)
    frames = (vae.decode(vae.encode(x)).permute(0, 2, 3, 4, 1) / 2 + 0.5).clamp(0, 1)
    readings = [read_clip(clip) for clip in frames]
    assert [(seen.colour, seen.shape, seen.motion) for seen in readings] == subjects


@torch.no_grad()
def test_latents_have_unit_spread_at_the_family_scale():
    vae = build_vae()
    weights = load_file(MODEL_FOLDER / "vae" / "diffusion_pytorch_model.safetensors")
    vae.load_state_dict({key: value.float() for key, value in weights.items()})
    z = (
        vae.encode(draw_batch([sample_clip(80_000 + i) for i in range(8)]))
        * settings("vae")["scaling_factor"]
    )
    assert 0.8 < float(z.std()) < 1.25


def test_whole_shapes_are_drawn():
    """Nine clips of ten steps, of all shapes; before their outlines were trained: 0.928, at least 0.899."""
    transformer = build_transformer()
    transformer.load_state_dict(start_weights(16))
    figures, _ = check_outlines(transformer, shipped_vae(), caption_features(), count=9, steps=10)
    assert (figures["colour"], figures["shape"], figures["motion"]) == (1, 1, 1)
    assert figures["iou"] > 0.95 and figures["least_iou"] > 0.925
