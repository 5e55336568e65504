"""`dev.py demo` from end to end with a tiny checkpoint in the pocket model's place."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tools import demo
from kinetograph.tools.commands import Trouble

pytestmark = pytest.mark.newest


@pytest.fixture
def pocket(base, tmp_path, monkeypatch):
    """Tiny checkpoints under the pocket models' names; returns the output folder."""
    folder = tmp_path / "models" / "CogVideo"
    shutil.copytree(base / "models" / "CogVideo" / "tiny-5B", folder / "pocket-cogvideox")
    image_model = base / "models" / "CogVideo" / "tiny-5B-I2V" / "transformer"
    config = {"config": (image_model / "config.json").read_text()}  # a single file brings its config along
    save_file(
        load_file(tiny.weights_of(image_model)), folder / "pocket-cogvideox-i2v.safetensors", metadata=config
    )
    monkeypatch.setattr(demo, "MODELS", tmp_path / "models")
    monkeypatch.setattr(demo, "POCKET", folder / "pocket-cogvideox")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "output")
    return tmp_path / "output"


def check_results(output, words):
    (video,), (sheet,) = output.glob("*.mp4"), output.glob("*.png")
    assert str(video) in words and str(sheet) in words
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.shape(frames) == (tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH, 3)
    assert Image.open(sheet).width > tiny.WIDTH


def test_prompt(host, pocket, capfd):
    assert demo.run(host, "a blue square moving up", None, cpu=True) == 0
    check_results(pocket, capfd.readouterr().out)


def test_picture(host, pocket, tmp_path, capfd):
    picture = tmp_path / "my picture.png"
    Image.new("RGB", (100, 80), "red").save(picture)
    assert demo.run(host, "a red square", picture, cpu=True) == 0
    check_results(pocket, capfd.readouterr().out)


def test_missing_picture(host, pocket, tmp_path):
    with pytest.raises(Trouble, match="no picture"):
        demo.run(host, "", tmp_path / "none.png", cpu=True)


def test_missing_pocket_model(host, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "POCKET", tmp_path)
    with pytest.raises(Trouble, match="pocket model"):
        demo.run(host, "", None, cpu=True)


def test_refusal_is_told(host, pocket):
    shutil.rmtree(pocket.parent / "models" / "CogVideo" / "pocket-cogvideox" / "vae")
    (pocket.parent / "models" / "CogVideo" / "pocket-cogvideox" / "vae").mkdir()
    (pocket.parent / "models" / "CogVideo" / "pocket-cogvideox" / "vae" / "config.json").write_text(
        '{"block_out_channels": [8, 8, 16, 16]}'
    )
    with pytest.raises(Trouble, match="(?s)did not make the video.*vae"):
        demo.run(host, "", None, cpu=True)
