"""The pocket CogVideoX-Fun models: known for what they are, scored on honest clips, and they draw what they should."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kinetograph.modules.families import COGVIDEOX
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket import inputs, starts
from kinetograph.pocket.parts import IMAGE_MODEL, INPAINT_MODEL, MODEL_FOLDER, build_transformer
from kinetograph.pocket.scenes import Known, Scene, draw_scene, draw_scenes, draw_silhouettes
from kinetograph.pocket.score_fun import KINDS, followed, kept, known_clips, open_fun, score, silhouettes
from kinetograph.pocket.shapes import COLOURS, FRAMES, GROUND, MOTIONS, SIZE, ShapeClip, draw, draw_mask
from kinetograph.pocket.shipped import caption_features

MOST_BYTES = 4_300_000
SCALE = 0.7
# what clips are drawn as instead
AS = {"colour": "red", "shape": "circle"}


@pytest.mark.parametrize("variant", KINDS)
def test_shipped_file_is_fun_at_its_own_size(variant):
    file, settings = KINDS[variant].file, KINDS[variant].settings
    header = read_header(file)
    finding = detect(header, (COGVIDEOX,), "diffusion_model").check()
    assert not finding.missing and not finding.unexpected
    assert (finding.dtype, finding.config.variant) == ("float16", variant)
    assert finding.config.native_size == (SIZE, SIZE, FRAMES)
    assert finding.config.learned_positions == 0 and finding.config.image_noise == 0
    assert json.loads(header.metadata["config"]) == settings
    assert file.stat().st_size <= MOST_BYTES
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["step"] > 0


SEEDS = range(400)


def test_a_seed_is_a_scene():
    drawn = [draw_scene(seed) for seed in SEEDS]
    assert drawn[7] == draw_scene(7) and len({scene for scene, _ in drawn}) == len(SEEDS)
    for names, of in ((COLOURS, "colour"), (MOTIONS, "motion")):
        counts = [sum(getattr(scene, of) == name for scene, _ in drawn) for name in names]
        assert min(counts) > len(SEEDS) / len(names) / 2
    starts = [sum(known.start > 1 for _, known in drawn), sum(known.end for _, known in drawn)]
    assert min(starts) > len(SEEDS) / 10


def test_scenes_stay_inside():
    scenes = [draw_scene(seed)[0] for seed in SEEDS[:100]]
    rim = draw_silhouettes(scenes)[..., 0].clone()
    rim[:, :, 1:-1, 1:-1] = 0
    assert float(rim.max()) == 0


def test_a_straight_scene_is_the_clip_of_the_text_to_video_model():
    scene = Scene("purple", "triangle", "moving up", 11.3, 1.4, (30.0, 45.0))
    clip = ShapeClip("purple", "triangle", "moving up", 11.3, 1.4 * 16, (30.0, 45.0 - 1.4 * 8))
    torch.testing.assert_close(draw_scenes([scene])[0], draw(clip), atol=1e-5, rtol=0)
    wanted = draw_mask(clip)[..., None].expand(-1, -1, -1, 3)
    torch.testing.assert_close(draw_silhouettes([scene])[0], wanted, atol=1e-5, rtol=0)
    assert scene.caption == clip.caption


def test_a_scene_turns_where_it_should():
    scene = Scene("red", "circle", "moving down", 11.0, 2.0, (20.0, 20.0), "moving left", 1.0, 3)
    steps = scene.centres().diff(dim=0)
    assert steps.tolist() == [[-1.0, 0.0]] * 2 + [[0.0, 2.0]] * (FRAMES - 3)


def test_masks_are_black_where_the_clip_is_known():
    mask = Known(2, 1, (8, 16, 40, 64)).mask()
    assert mask[:2].sum() == mask[-1].sum() == 0
    assert mask[2:-1, 16:, 8:40].all() and mask.sum() == (FRAMES - 3) * 48 * 32


class Cells:
    """Stands for the autoencoder: the mean of each cell of 8x8 pixels, of frame 0 and of every four after it."""

    def encode(self, x_bcthw):
        cells = torch.nn.functional.avg_pool3d(x_bcthw, (1, 8, 8))
        parts = [cells[:, :, :1], *cells[:, :, 1:].split(4, dim=2)]
        return torch.cat([part.mean(2, keepdim=True) for part in parts], 2).repeat(1, 6, 1, 1, 1)[:, :16]


def seed_of(wanted):
    """The first seed whose clip is known as `wanted` says."""
    return next(seed for seed in range(1000) if wanted(draw_scene(seed)[1]))


def cells_of(frames_fhwc):
    return Cells().encode(frames_fhwc.permute(3, 0, 1, 2)[None] * 2 - 1)[0] * SCALE


CASES = {
    "nothing": lambda known: known.is_nothing,
    "first": lambda known: (known.start, known.end) == (1, 0),
    "four": lambda known: (known.start, known.end) == (4, 0),
    "ends": lambda known: (known.start, known.end) == (1, 1),
    "around": lambda known: known.box != (0, 0, SIZE, SIZE),
}


@pytest.mark.parametrize("case", CASES)
def test_inp_is_shown_what_is_known(case):
    seed = seed_of(CASES[case])
    (scene, known), beside = draw_scene(seed), known_clips(Cells(), [seed])
    frames, mask = draw_scenes([scene])[0], known.mask()[..., None]
    if case == "nothing":
        assert beside.shape == (1, 17, 5, 8, 8) and not beside.any()
        return
    torch.testing.assert_close(beside[0, 1:], cells_of(frames * (1 - mask)))
    told = beside[0, 0] / SCALE
    # a last frame alone leaves no trace
    whole = {"first": [1, 0, 0, 0, 0], "ends": [1, 0, 0, 0, 0], "four": [1, 1, 0, 0, 0]}.get(case)
    if whole is None:
        # without antialiasing: the two pixels in the middle of each cell, along both axes
        middles = (1 - known.mask()[0]).view(8, 8, 8, 8)[:, 3:5, :, 3:5].mean((1, 3))
        torch.testing.assert_close(told, middles.expand(5, 8, 8))
    else:
        torch.testing.assert_close(told, torch.tensor(whole).float().view(5, 1, 1).expand(5, 8, 8))


def test_control_is_shown_the_silhouette_and_told_the_colour():
    seeds = range(500, 560)
    drawn, beside = [draw_scene(seed)[0] for seed in seeds], silhouettes(Cells(), seeds)
    assert beside.shape == (60, 16, 5, 8, 8)
    told = [KINDS["Fun-5B-Control"].told(seed) for seed in seeds]
    for i, scene in enumerate(drawn):
        ground, colour = torch.tensor(GROUND), torch.tensor(COLOURS[scene.colour])
        frames = draw_scenes([scene])[0]
        cover = ((frames - ground) / (colour - ground))[..., :1].expand(-1, -1, -1, 3)
        torch.testing.assert_close(beside[i], cells_of(cover), atol=1e-5, rtol=0)
        assert told[i].colour == scene.colour
    same = [words.caption == scene.caption for words, scene in zip(told, drawn, strict=True)]
    assert 0.3 < sum(same) / len(same) < 0.75


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in starts.STARTS if "fun" in name])
def test_start_is_the_shipped_text_to_video_model(name, tmp_path):
    """Also: a file as the trainer leaves it, in full precision, is known to the score."""
    variant, started = open_fun(starts.write_start(name, tmp_path))
    text = build_transformer()
    stored = load_file(MODEL_FOLDER / "transformer" / "diffusion_pytorch_model.safetensors")
    text.load_state_dict({key: value.float() for key, value in stored.items()})
    torch.manual_seed(0)
    x = torch.randn(1, KINDS[variant].settings["in_channels"], 5, 8, 8)
    t, context = torch.tensor([500]), caption_features()[:1]
    assert torch.allclose(started(x, t, context), text(x[:, :16], t, context), atol=1e-5)


def test_score_refuses_what_is_no_fun_model():
    with pytest.raises(ValueError, match="i2v.safetensors is a CogVideoX 5B-I2V: choose one of Fun-5B-InP"):
        open_fun(IMAGE_MODEL)


def test_score_reads_true_clips_and_those_gone_astray():
    seeds = range(30)
    scenes = [draw_scene(seed)[0] for seed in seeds]
    true = draw_scenes(scenes)
    assert kept(true, seeds) == {"known_db": 100, "off_path": 0, "off_end": 0}
    assert followed(true, seeds) == {"colour": 1, "shape": 1, "off_path": 0}
    aside = draw_scenes([replace(scene, start=(scene.start[0] + 3, scene.start[1])) for scene in scenes])
    off = kept(aside, seeds)
    assert off["off_path"] == pytest.approx(3, abs=0.05) and off["off_end"] == pytest.approx(3, abs=0.05)
    assert off["known_db"] < 30 and followed(aside, seeds)["off_path"] == pytest.approx(3, abs=0.05)
    other = draw_scenes([replace(scene, **AS) for scene in scenes])
    parts = [sum(getattr(scene, of) == was for scene in scenes) / 30 for of, was in AS.items()]
    read = followed(other, seeds)
    assert [read["colour"], read["shape"]] == parts and max(parts) < 0.6


def test_shipped_inp_keeps_what_is_known():
    figures = score(INPAINT_MODEL, 9)
    assert figures["known_db"] > 28 and figures["off_path"] < 5 and figures["off_end"] < 2


def test_shipped_control_follows_and_takes_its_colour_from_the_caption():
    figures = score(KINDS["Fun-5B-Control"].file, 6)
    assert figures["colour"] == figures["shape"] == 1 and figures["off_path"] < 1


@pytest.mark.parametrize("name", inputs.INPUTS)
def test_inputs_of_the_workflows_are_what_the_script_draws(name):
    file, wanted = inputs.FOLDER / name, inputs.INPUTS[name]()
    if file.suffix == ".png":
        assert np.array_equal(np.array(Image.open(file)), (wanted * 255).round().byte().numpy())
    elif file.suffix == ".jpg":
        assert np.abs(np.array(Image.open(file)) / 255 - wanted.numpy()).mean() < 0.01
    else:
        assert np.abs(frames_of(file, inputs.frame_rate(name)) - wanted.numpy()).mean() < 0.02


@pytest.mark.parametrize("name", inputs.ROCKETS)
def test_clips_of_the_rocket_begin_and_end_as_the_script_draws(name):
    """All frames take seconds to draw; a clip of two has the first and the last."""
    count, draw_frames = inputs.ROCKETS[name]
    frames = frames_of(inputs.FOLDER / name, inputs.frame_rate(name))
    assert len(frames) == count
    assert np.abs(frames[[0, -1]] - draw_frames(2).numpy()).mean() < 0.02


def frames_of(file, rate):
    """(f, h, w, 3) in 0..1 of a clip of that many frames a second."""
    with av.open(str(file)) as video:
        assert video.streams.video[0].average_rate == rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]) / 255


def test_the_last_frame_is_where_the_first_one_leads():
    first = np.array(Image.open(inputs.FOLDER / "kinetograph_first_frame.png")) / 255
    assert np.abs(first - draw_scenes([inputs.RIGHT])[0, 0].numpy()).max() < 0.01
