"""Pictures and clips that the CogVideoX-Fun workflows start from: `python -m pocket.inputs` writes them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import torch
from PIL import Image
from torch import Tensor

from .parts import ROOT
from .scenes import Known, Scene, cover_scenes, draw_scenes, draw_silhouettes
from .shapes import FRAMES

FOLDER = ROOT / "workflows" / "input"
FRAME_RATE = 8
# goes on from kinetograph_first_frame.png
RIGHT = Scene("red", "circle", "moving right", 11.5, 22 / (FRAMES - 1), (21.0, 32.0))
# stands where the circle of RIGHT goes, and is to go
BLOT = Scene("green", "square", "standing still", 11.0, 0.0, (47.0, 32.0))
HOLE = Known(box=(32, 16, 62, 48))
# no caption tells of this way
CORNER = Scene(
    "white", "triangle", "moving up", 11.5, 24 / (FRAMES - 1), (18.0, 46.0), "moving right", 28 / (FRAMES - 1), 9
)  # fmt: skip


def last_frame() -> Tensor:
    return draw_scenes([RIGHT])[0, -1]


def covered_clip() -> Tensor:
    return torch.where(cover_scenes([BLOT])[0, ..., None] > 0, *draw_scenes([BLOT, RIGHT]))


def hole() -> Tensor:
    return HOLE.mask()[..., None].expand(-1, -1, -1, 3)


def control_clip() -> Tensor:
    return draw_silhouettes([CORNER])[0]


# file: picture (h, w, 3) or clip (f, h, w, 3), in 0..1
INPUTS: dict[str, Callable[[], Tensor]] = {
    "kinetograph_last_frame.png": last_frame,
    "kinetograph_inpaint_clip.mp4": covered_clip,
    "kinetograph_inpaint_mask.mp4": hole,
    "kinetograph_control.mp4": control_clip,
}


def write_clip(file: Path, frames_fhwc: Tensor) -> None:
    """An mp4 that is near its frames in 0..1."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", Fraction(FRAME_RATE), options={"crf": "8"})
        _, stream.height, stream.width, _ = frames_fhwc.shape
        stream.pix_fmt = "yuv420p"
        for frame in (frames_fhwc * 255).round().to(torch.uint8).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    for name, draw in INPUTS.items():
        pixels = draw()
        if pixels.ndim == 4:
            write_clip(FOLDER / name, pixels)
        else:
            Image.fromarray((pixels * 255).round().to(torch.uint8).numpy()).save(FOLDER / name)


if __name__ == "__main__":
    main()
