"""Pictures and clips that the workflows start from: `python -m pocket.inputs` writes them."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import rocket
from .parts import ROOT
from .scenes import Known, Scene, cover_scenes, draw_scenes, draw_silhouettes
from .shapes import FRAMES, GROUND, SIZE, ShapeClip, draw

FOLDER = ROOT / "workflows" / "input"
# goes on from kinetograph_first_frame.png
RIGHT = Scene("red", "circle", "moving right", 11.5, 22 / (FRAMES - 1), (21.0, 32.0))
# the same, but nearer than it goes of itself
NEAR = replace(RIGHT, speed=12 / (FRAMES - 1))
# stands where the circle of RIGHT goes, and is to go
BLOT = Scene("green", "square", "standing still", 11.0, 0.0, (47.0, 32.0))
HOLE = Known(box=(32, 16, 62, 48))
# no caption tells of this way
CORNER = Scene(
    "white", "triangle", "moving up", 11.5, 24 / (FRAMES - 1), (18.0, 46.0), "moving right", 28 / (FRAMES - 1), 9
)  # fmt: skip
# before it is enlarged
FILMED = ShapeClip("white", "circle", "moving left", 11.5, 27.0, (30.0, 32.0))
FILM_FRAMES, FILM_RATE = 60, 24


def last_frame() -> Tensor:
    return draw_scenes([NEAR])[0, -1]


def covered_clip() -> Tensor:
    return torch.where(cover_scenes([BLOT])[0, ..., None] > 0, *draw_scenes([BLOT, RIGHT]))


def hole() -> Tensor:
    return HOLE.mask()[..., None].expand(-1, -1, -1, 3)


def control_clip() -> Tensor:
    return draw_silhouettes([CORNER])[0]


def own_clip() -> Tensor:
    """As a camera has it: larger, wider, and with more frames a second than a model takes."""
    small = draw(FILMED, FILM_FRAMES).permute(0, 3, 1, 2)
    pixels = F.interpolate(small, scale_factor=2, mode="bilinear").permute(0, 2, 3, 1)
    side = torch.tensor(GROUND).expand(FILM_FRAMES, 2 * SIZE, 16, 3)
    return torch.cat([side, pixels, side], dim=2)


# file: picture (h, w, 3) or clip (f, h, w, 3), in 0..1
INPUTS: dict[str, Callable[[], Tensor]] = {
    "kinetograph_last_frame.png": last_frame,
    "kinetograph_inpaint_clip.mp4": covered_clip,
    "kinetograph_inpaint_mask.mp4": hole,
    "kinetograph_control.mp4": control_clip,
    "kinetograph_own_clip.mp4": own_clip,
    "kinetograph_rocket.jpg": lambda: rocket.picture(0),
    "kinetograph_rocket_high.jpg": lambda: rocket.picture(1),
}
SIDES = (720, 480)
# file: (frames, clip of so many)
ROCKETS: dict[str, tuple[int, Callable[[int], Tensor]]] = {
    "kinetograph_rocket.mp4": (49, lambda frames: rocket.clip(frames, *SIDES)),
    "kinetograph_rocket_lines.mp4": (49, lambda frames: rocket.edges(rocket.clip(frames, *SIDES))),
    "kinetograph_rocket_mask.mp4": (49, lambda frames: rocket.way(frames, *SIDES)),
    "kinetograph_rocket_square.mp4": (32, lambda frames: rocket.clip(frames, 512, 512)),
}
# large, and made for eyes: need not be exact
CRF, ROCKET_CRF = "8", "28"


def frame_rate(name: str) -> int:
    """Frames a second of a clip."""
    return {"kinetograph_own_clip.mp4": FILM_RATE, "kinetograph_rocket_square.mp4": 30}.get(name, 8)


def write_clip(file: Path, frames_fhwc: Tensor, rate: int, crf: str) -> None:
    """An mp4 that is near its frames in 0..1."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", Fraction(rate), options={"crf": crf})
        _, stream.height, stream.width, _ = frames_fhwc.shape
        stream.pix_fmt = "yuv420p"
        for frame in (frames_fhwc * 255).round().to(torch.uint8).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    for name, content in INPUTS.items():
        pixels = content()
        if pixels.ndim == 4:
            write_clip(FOLDER / name, pixels, frame_rate(name), CRF)
        else:
            Image.fromarray((pixels * 255).round().to(torch.uint8).numpy()).save(FOLDER / name, quality=88)
    for name, (frames, draw_frames) in ROCKETS.items():
        write_clip(FOLDER / name, draw_frames(frames), frame_rate(name), ROCKET_CRF)


if __name__ == "__main__":
    main()
