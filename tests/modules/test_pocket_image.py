"""The image-to-video pocket model: known for what it is, started where it should be, trained on honest clips."""

import json

import torch

from kinetograph.modules.families import COGVIDEOX
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket.parts import IMAGE_MODEL, IMAGE_SETTINGS, MODEL_FOLDER
from kinetograph.pocket.shapes import GROUND, SIZE, draw
from kinetograph.pocket.train_image import FromImage, beside_noise, start_from, wandering_clips
from kinetograph.pocket.train_transformer import Training

MOST_BYTES = 4_300_000


def test_shipped_file_is_5b_i2v_at_its_own_size():
    header = read_header(IMAGE_MODEL)
    finding = detect(header, (COGVIDEOX,), "diffusion_model").check()
    assert not finding.missing and not finding.unexpected
    assert finding.dtype == "float16"
    assert finding.config.variant == "5B-I2V"
    assert finding.config.native_size == (SIZE, SIZE, 17)
    assert finding.config.image_latent_scale == 0.7
    assert IMAGE_MODEL.stat().st_size <= MOST_BYTES


def test_shipped_file_carries_its_config():
    assert json.loads(read_header(IMAGE_MODEL).metadata["config"]) == IMAGE_SETTINGS


def test_shipped_file_reads_the_shipped_text_encoder():
    text = read_header(MODEL_FOLDER / "text_encoder").shapes["shared.weight"][1]
    assert read_header(IMAGE_MODEL).shapes["patch_embed.text_proj.weight"][1] == text


def test_wandering_clips_stay_inside():
    for clip in wandering_clips():
        frames = draw(clip)
        rim = torch.cat([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], 1)
        assert torch.allclose(rim, torch.tensor(GROUND), atol=0.3), clip  # a tip may smear


class Words:
    rows = range(20)


@torch.no_grad()
def test_start_is_the_text_to_video_model(tmp_path):
    torch.manual_seed(0)
    text = Training(Words())
    for p in text.average.transformer.parameters():
        p.copy_(torch.randn_like(p) * 0.05)
    torch.save({"model": text.both.state_dict()}, tmp_path / "state.pt")
    started = Training(Words(), IMAGE_SETTINGS)
    start_from(started, tmp_path)
    x, image = torch.randn(1, 16, 5, 8, 8), torch.randn(1, 16, 1, 8, 8)
    t, ids = torch.tensor([500]), torch.zeros(1, 16, dtype=torch.long)
    context = text.average.context(ids)
    assert torch.equal(started.model.context(ids), context)
    wanted = text.average.velocity(x, t, context)
    assert torch.allclose(FromImage(started.average, image).velocity(x, t, context), wanted, atol=1e-5)


def test_image_is_at_the_first_latent_frame_alone():
    x, image = torch.randn(2, 16, 5, 8, 8), torch.randn(2, 16, 1, 8, 8)
    both = beside_noise(x, image)
    assert both.shape == (2, 32, 5, 8, 8)
    assert torch.equal(both[:, :16], x) and torch.equal(both[:, 16:, :1], image)
    assert not both[:, 16:, 1:].any()
