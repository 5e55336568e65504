"""Size From Image on the real host: from a picture and from a video, for a model and without one."""

import dataclasses

import pytest
import torch

from kinetograph.tests.films import run_ffmpeg, shots, write
from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, run


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


def picture(width, height, count=1):
    return torch.zeros(1, 1, 1, 3).expand(count, height, width, 3)


def size_of(bench, image, rule="bucket", num_frames=49, model=None, **choices):
    rule = {"rule": rule, **({"base": 512} if rule != "keep" else {}), **choices}
    return run(bench.ours["SizeFromImage"], image=image, rule=rule, num_frames=num_frames, model=model)


@pytest.mark.parametrize(
    ("side", "size"), [(512, (384, 672)), (768, (576, 1008)), (960, (720, 1248)), (1024, (768, 1344))]
)
def test_the_start_image(bench, side, size):
    *got, frames, report = size_of(bench, picture(1080, 1920), base=side)
    assert (*got, frames) == (*size, 49)
    assert (
        report.startswith("A picture, 1080x1920.\n") and f"{size[0]}x{size[1]}: the nearest of 40" in report
    )
    assert 'fit "crop" cuts' in report and "49 frames: 49 were set." in report


@pytest.mark.parametrize(
    ("side", "frames"), [(512, 49), (640, 29), (768, 21), (896, 13), (1024, 9), (1280, 5)]
)
def test_a_budget_of_tokens(bench, side, frames):
    width, height, got, report = size_of(bench, picture(64, 64), "tokens", base=side, tokens="13312")
    assert (width, height, got) == (side, side, frames)
    assert "13312 tokens leave" in report


@pytest.mark.parametrize("rule", ["bucket", "keep"])
def test_a_video_of_a_turned_phone(bench, tmp_path, rule):
    """It stands upright, its frames are counted, and what does not fold is left out."""
    from comfy_api.latest import InputImpl

    write(tmp_path / "flat.mp4", shots(24, 640, 360))
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", 90, "-i", tmp_path / "flat.mp4", "-c", "copy", turned)
    width, height, frames, report = size_of(bench, InputImpl.VideoFromFile(str(turned)), rule, num_frames=0)
    assert (width, height, frames) == ((384, 672, 21) if rule == "bucket" else (352, 640, 21))
    assert "A video of 24 frames at 24 frames per second, 360x640." in report
    assert "24 are there, the next lower that folds 4 frames into one is 21" in report


def test_a_video_shorter_than_asked(bench, tmp_path):
    from comfy_api.latest import InputImpl, Types

    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=picture(64, 64, 30), frame_rate=8))
    *_, frames, report = size_of(bench, video)
    assert frames == 29 and "49 were set, the video has 30, the next lower" in report


def test_several_start_images_do_not_shorten_the_clip(bench):
    assert size_of(bench, picture(64, 64, 4))[2] == 49
    assert size_of(bench, picture(64, 64, 30), num_frames=0)[2] == 29


def test_a_model_says_what_it_takes(bench):
    """SVD: multiples of 64 and any number of frames; of 0 its own."""
    from kinetograph.nodes.host.description import describe

    model = SVDWorkbench().svd()[0]
    assert size_of(bench, picture(1080, 1920), model=model, num_frames=14)[:3] == (384, 640, 14)
    width, height, frames, report = size_of(bench, picture(1080, 1920), "keep", model=model, num_frames=0)
    native = describe(model, "test").native_size[2]
    assert (width, height, frames) == (704, 1280, native) and f"{native} are what it makes" in report


def test_a_model_with_one_size(bench):
    """5B-I2V has learned positions for its own size only."""
    from kinetograph.nodes.host.description import describe

    model = bench.shared("5B-I2V")[0]
    limits = describe(model, "test").limits
    width, height, frames, report = size_of(bench, picture(1080, 1920), model=model, num_frames=81)
    assert (width, height) == limits.size and "the one size that" in report
    assert frames == limits.max_frames and f"has at most {frames}" in report


def test_a_model_that_takes_pairs_of_latent_frames(bench, base):
    """As CogVideoX-Fun V1.5: 13 latent frames of 49 are odd, so that 45 are left; Fit Video agrees."""
    from comfy_api.latest import InputImpl

    from kinetograph.modules.families.family import FrameRule
    from kinetograph.nodes.host.description import attach, describe

    model = bench.shared("5B")[0].clone()
    rule = FrameRule(2, pads=False, lone_frame=True)
    attach(model, dataclasses.replace(describe(model, "test"), frame_rule=rule))
    *_, frames, report = size_of(bench, picture(64, 64), model=model)
    assert frames == 45 and "folds 4 frames into one, 2 of those into one, is 45" in report
    film = InputImpl.VideoFromFile(write(base / "pairs.mkv", shots(60), 20))
    choices = {"start": 0.0, "frame_rate": 0.0, "every_nth": 1, "width": 48, "height": 32, "fit": "exact"}
    fitted = run(bench.ours["FitVideo"], video=film, num_frames=49, model=model, **choices)
    assert fitted[3] == 45 == len(fitted[0])


@pytest.mark.parametrize("side", [256, 512, 768, 1024, 1280])
@pytest.mark.parametrize("shape", [(1080, 1920), (1920, 1080), (1000, 1000)])
def test_what_comes_out_goes_into_video_latent(bench, side, shape):
    width, height, frames, _ = size_of(bench, picture(*shape), "tokens", base=side, tokens="13312")
    choices = {"family": "cogvideox", "batch_size": 1}
    latent = run(bench.ours["VideoLatent"], width=width, height=height, num_frames=frames, **choices)[0]
    assert latent["samples"].shape == (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)


def test_neither_picture_nor_video(bench):
    with pytest.raises(ValueError, match="image must be an IMAGE .* or a VIDEO, over a link: got 'x'"):
        size_of(bench, "x")
