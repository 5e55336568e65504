"""The pocket SVD's world, its latents, what is measured of its clips, and its names on the way to a file."""

import dataclasses
import json

import pytest
import torch

from kinetograph.modules.encoders.clip_vision import OPEN_CLIP, read_config, to_hugging_face
from kinetograph.modules.families import SVD
from kinetograph.modules.families.svd.config import LATENT_SCALE, SVDConfig
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.modules.weights.load import open_part
from kinetograph.pocket.shapes import COLOURS, GROUND, draw_mask
from kinetograph.pocket.svd import world
from kinetograph.pocket.svd.latents import CELL, SCALE, latents_of, preview_factors
from kinetograph.pocket.svd.measures import path_of, rank_correlation, speed_error, speed_of
from kinetograph.pocket.svd.sampling import clean_of, mean_colours
from kinetograph.pocket.svd.ship import MODEL, PATCH, fold_quant, model_settings
from kinetograph.pocket.svd.train_unet import settings
from kinetograph.pocket.svd.train_vae import build_vae, start_weights
from kinetograph.pocket.svd.vision import HEADS, build_vision, open_clip_names, prepare

MOST_BYTES, MOST_PATCH_BYTES = 13_200_000, 6_600_000
CLIPS = [world.sample_clip(5_000 + i, subject) for i, subject in enumerate(world.all_subjects()[::5])]


def test_shapes_stay_inside_even_in_long_clips():
    for subject in world.all_subjects()[::7]:
        for seed in range(3):
            clip = world.sample_clip(seed, subject, bucket=world.BUCKETS)
            cover = draw_mask(clip, world.LONG_FRAMES, world.SIZE)
            assert not cover[:, [0, -1]].any() and not cover[..., [0, -1]].any(), clip


def test_start_tells_the_direction_and_the_path_leads_through_the_middle():
    for clip in CLIPS:
        way = torch.tensor([world.SIZE / 2, world.SIZE / 2]) - torch.tensor(clip.start)
        assert (
            way @ clip.direction > 30
            and way.norm() ** 2 - (way @ clip.direction) ** 2 <= world.STRAY**2 + 0.01
        )


def test_still_clips_stand_still_inside():
    for seed in range(20):
        clip = world.still_clip(seed)
        assert clip.speed == 0
        assert not draw_mask(clip, 1, world.SIZE)[:, [0, -1]].any()


def test_speed_is_linear_in_the_bucket_whatever_the_frame_rate():
    clips = [world.sample_clip(i, bucket=51.0 * i) for i in range(6)]
    assert [clip.speed for clip in clips] == pytest.approx([0.2 * world.TOP_SPEED * i for i in range(6)])
    assert len({clip.fps for clip in clips}) > 1


def test_measured_speed_is_the_true_one():
    for clip in CLIPS:
        frames = world.draw_frames(clip).permute(0, 2, 3, 1) / 2 + 0.5
        assert speed_of(path_of(frames), clip) == pytest.approx(clip.speed, abs=0.02)
        assert speed_error(path_of(frames), clip) < 0.1


def test_speed_error_sees_jumps_and_drift_aside():
    clip = next(clip for clip in CLIPS if clip.motion == "moving right")
    true = clip.centres(9)
    jumpy = true + torch.tensor([[0.5, 0.0]]) * (torch.arange(9) % 2)[:, None]
    assert speed_of(jumpy, clip) == pytest.approx(clip.speed, abs=1e-4)
    assert speed_error(jumpy, clip) == pytest.approx(0.5, abs=1e-3)
    drifting = true + torch.tensor([[0.0, 0.3]]) * torch.arange(9)[:, None]
    assert speed_error(drifting, clip) == pytest.approx(0.3, abs=1e-3)


def test_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3, 4], [10.0, 11.0, 90.0, 91.0]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [1.0, 3.0, 2.0]) == pytest.approx(0.5)


def test_latents_hold_the_mean_colour_and_the_place():
    assert SCALE == LATENT_SCALE
    for clip in CLIPS[:4]:
        pictures = world.draw_frames(clip)
        z = latents_of(pictures)
        means = torch.nn.functional.avg_pool2d(pictures, CELL).permute(0, 2, 3, 1)
        torch.testing.assert_close(mean_colours(z) * 2 - 1, means, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            path_of(mean_colours(z), CELL), clip.centres(world.FRAMES), atol=1.2, rtol=0
        )
        factors, bias = preview_factors()
        seen = torch.einsum("nchw,cr->nhwr", z, torch.tensor(factors)) + torch.tensor(bias)
        torch.testing.assert_close(seen, means, atol=1e-3, rtol=0)


def test_fourth_latent_tells_outlines_of_the_left_from_those_of_the_right():
    picture = torch.tensor(GROUND).view(1, 3, 1, 1).repeat(1, 1, 8, 16) * 2 - 1
    colour = torch.tensor(COLOURS["white"]).view(3, 1, 1) * 2 - 1
    picture[0, :, :, 4:12] = colour
    lean = latents_of(picture)[0, 3, 0]
    assert lean[0] > 0.3 and lean[1] == pytest.approx(-lean[0].item(), abs=1e-4)


def test_clean_estimate_undoes_v():
    z, noise, sigma = torch.randn(2, 1, 4, 2, 2), torch.randn(2, 1, 4, 2, 2), torch.tensor([0.3, 50.0])
    s = sigma.view(-1, 1, 1, 1, 1)
    v = (noise - s * z) / (s**2 + 1).sqrt()
    torch.testing.assert_close(clean_of(z + s * noise, v, sigma), z, atol=1e-4, rtol=0)


@torch.no_grad()
def test_folded_autoencoder_encodes_the_same():
    torch.manual_seed(0)
    vae = build_vae()
    start_weights(vae)
    for p in vae.quant_conv.parameters():
        p.normal_()
    picture = torch.randn(1, 3, 32, 32)
    wanted = vae.encode(picture)
    folded = fold_quant(dict(vae.state_dict()))
    vae.quant_conv = None
    vae.load_state_dict(folded)
    torch.testing.assert_close(vae.encode(picture), wanted, atol=1e-4, rtol=1e-4)


def test_clip_names_come_back():
    vision = build_vision()
    stored = open_clip_names(dict(vision.state_dict()))
    renames = OPEN_CLIP.rename(stored)
    ours = {renames[key]: value for key, value in stored.items()}
    config = read_config(
        {key: tuple(value.shape) for key, value in ours.items()}, {"image_encoder_heads": HEADS}
    )
    assert config.fused and config.num_heads == HEADS
    back = to_hugging_face(ours, config)
    own = {k: v for k, v in vision.state_dict().items() if "position_ids" not in k}
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)


@pytest.mark.parametrize("kind", ["diffusion_model", "vae", "image_vae", "image_encoder"])
def test_shipped_file_holds_every_part(kind):
    finding = detect(read_header(MODEL), (SVD,), kind).check()
    assert not finding.missing and not finding.unexpected
    assert finding.dtype == "float16"
    assert MODEL.stat().st_size <= MOST_BYTES


def test_shipped_file_tells_its_sizes():
    header = read_header(MODEL)
    assert json.loads(header.metadata["config"]) == model_settings()
    config = detect(header, (SVD,), "diffusion_model").check().config
    assert config == dataclasses.replace(SVDConfig(**settings()), latents=config.latents)
    assert detect(header, (SVD,), "image_encoder").check().config.num_heads == HEADS


def test_shipped_patch_fits_the_shipped_model():
    header = read_header(PATCH)
    assert len(header.shapes) == 528 and PATCH.stat().st_size <= MOST_PATCH_BYTES
    patch = detect(header, (SVD,), "extension").check().config
    model = detect(read_header(MODEL), (SVD,), "diffusion_model").check().config
    assert (patch.channels, patch.head_dim, patch.context_dim) == (
        model.channels,
        model.head_dim,
        model.context_dim,
    )
    assert patch.native_size == (world.SIZE, world.SIZE, world.LONG_FRAMES)


@torch.no_grad()
def test_shipped_vision_model_tells_colour_and_place():
    config = detect(read_header(MODEL), (SVD,), "image_encoder").check()
    vision = build_vision().eval()
    vision.load_state_dict(
        {k: v.float() for k, v in to_hugging_face(open_part(MODEL, config), config.config).items()}
    )
    clip = world.sample_clip(1, ("red", "circle", "moving left"))
    larger, other, turned = (
        dataclasses.replace(clip, **change)
        for change in (
            {"radius": clip.radius + 0.5},
            {"colour": "blue"},
            {"start": tuple(world.SIZE - x for x in clip.start)},
        )
    )
    pictures = torch.cat([world.draw_frames(each, 1) for each in (clip, larger, other, turned)])
    tokens = vision(prepare(pictures)).image_embeds
    near, colour_apart, place_apart = (tokens[1:] - tokens[0]).norm(dim=1)
    assert 3 * near < min(colour_apart, place_apart)
