"""Small data folders for tests of training: films and pictures with a caption beside each."""

import numpy as np
from PIL import Image

from kinetograph.tests.films import shots, write


def film(folder, name, count=60, rate=24, width=48, height=32, caption="a ball", frames=None):
    folder.mkdir(exist_ok=True)
    write(folder / f"{name}.mp4", shots(count, width, height) if frames is None else frames, rate)
    if caption is not None:
        (folder / f"{name}.txt").write_text(caption)


def picture(folder, name, width=48, height=32, caption="a ball"):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
    (folder / name).with_suffix(".txt").write_text(caption)
    return pixels
